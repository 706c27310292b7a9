"""Stages that train the refiners."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.method import refiners, reward_models
from glore_jax.models.decoder import Decoder
from glore_jax.pipeline import StageContext
from glore_jax.records import RefinementPair, Solution, StepLabels
from glore_jax.stages import artifacts
from glore_jax.stages.rollout_parts import RolloutParts
from glore_jax.training import losses


def _train_refiner(
    context: StageContext, pairs: Sequence[RefinementPair], values: Sequence[Sequence[float]] | None = None
) -> dict[str, Any]:
    settings = context.config.refiner
    start = artifacts.start_of(settings, "refiner")
    if not pairs:
        raise InputError(
            "no refinement pairs: no train question has both a right and a wrong trace; raise traces.per_problem, "
            "or change the problems' difficulty"
        )
    tokenizer = artifacts.read_tokenizer(context)
    problems = {p.id: p for p in artifacts.read_problems(context, "train")}
    model, params = artifacts.read_model(context.input(start), context.config.train_dtype, context.placement)
    model = Decoder(dataclasses.replace(model.config, prefix_lm=settings.prefix_lm))
    examples = refiners.examples(tokenizer, problems, pairs, settings.prefix_lm, values)
    params = {"decoder": params["decoder"]}
    trained, counts = artifacts.train(context, model, params, losses.language, examples, settings.train, tokenizer)
    artifacts.write_trained(context.folder, trained, model.config)
    artifacts.write_table(context.folder / "pairs.parquet", pairs, RefinementPair)
    return {"pairs": len(pairs)} | counts


def _traces(context: StageContext) -> list[Solution]:
    return files.read_table(context.input("traces") / "traces.parquet", Solution)


def global_refiner(context: StageContext) -> dict[str, Any]:
    """p(A | Q, draft), on pairs of a wrong and a right trace of one question."""
    return _train_refiner(context, refiners.global_pairs(_traces(context), context.config.refiner.global_pairs))


def local_refiner(context: StageContext) -> dict[str, Any]:
    """p(A | Q, draft, E), on pairs of rollouts around the first wrong step."""
    folder = context.input("labels")
    chosen = files.read_table(folder / "traces.parquet", Solution)
    labels = files.read_table(folder / "labels.parquet", StepLabels)
    with RolloutParts(folder).shown(context, "pairs") as rollouts:
        pairs = refiners.local_pairs(chosen, labels, rollouts, _traces(context), context.config.refiner.local_pairs)
    return _train_refiner(context, pairs)


def value_refiner(context: StageContext) -> dict[str, Any]:
    """The global refiner with each draft step carrying its SORM value."""
    pairs = refiners.global_pairs(_traces(context), context.config.refiner.global_pairs)
    tokenizer = artifacts.read_tokenizer(context)
    problems = {p.id: p for p in artifacts.read_problems(context, "train")}
    model, params = artifacts.read_model(context.input("sorm"), "float32", context.sampling_placement.of_process())
    drafts = {p.draft_tokens: p for p in pairs}
    rows = [
        Solution(str(n), p.problem_id, p.draft_tokens, p.draft_step_ends, "", False)
        for n, p in enumerate(drafts.values())
    ]
    scores = reward_models.score(model, params, tokenizer, problems, rows, context.sampling_placement)
    values = dict(zip(drafts, scores, strict=True))
    return _train_refiner(context, pairs, [values[p.draft_tokens] for p in pairs])
