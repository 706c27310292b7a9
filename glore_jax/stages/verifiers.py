"""Stages that train the value models."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.method import reward_models, soft_labels
from glore_jax.pipeline import StageContext
from glore_jax.records import Solution, StepLabels
from glore_jax.stages import artifacts
from glore_jax.stages.rollout_parts import RolloutParts
from glore_jax.training import losses


def _train_value(
    context: StageContext,
    train: Any,
    traces: Sequence[Solution],
    labels: Sequence[StepLabels],
    targets: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    settings = context.config.value
    start = artifacts.start_of(settings, "value")
    tokenizer = artifacts.read_tokenizer(context)
    problems = {p.id: p for p in artifacts.read_problems(context, "train")}
    model, params = artifacts.read_model(context.input(start), context.config.train_dtype, context.placement)
    params = artifacts.with_value_head(context, params, model.config.d_model, settings.surprise)
    traces, labels, labels_cut = reward_models.truncate(tokenizer, problems, traces, labels, train.row_length)
    examples = reward_models.examples(tokenizer, problems, traces, labels, model.config.prefix_lm, targets)
    loss = functools.partial(losses.value, language=settings.language)
    trained, counts = artifacts.train(context, model, params, loss, examples, train, tokenizer)
    artifacts.write_trained(context.folder, trained, model.config)
    kept = [x for entry in labels for x in entry.labels if x >= 0]
    counts["step_accuracy"] = counts.pop("token_accuracy")
    return counts | {"labels": len(kept), "labels_cut": labels_cut, "positive": sum(kept) / len(kept)}


def orm(context: StageContext) -> dict[str, Any]:
    """ORM: the final label at every step end of every trace."""
    traces = files.read_table(context.input("traces") / "traces.parquet", Solution)
    return _train_value(context, context.config.orm.train, traces, reward_models.orm_labels(traces))


def orm_balanced(context: StageContext) -> dict[str, Any]:
    """ORM on equal numbers of right and wrong traces of each question."""
    traces = reward_models.balanced_traces(files.read_table(context.input("traces") / "traces.parquet", Solution))
    if not traces:
        raise InputError("no question has both a right and a wrong trace; raise traces.per_problem")
    return _train_value(context, context.config.orm.train, traces, reward_models.orm_labels(traces))


def sorm(context: StageContext) -> dict[str, Any]:
    """SORM: the balanced step labels."""
    return _train_value(context, context.config.sorm.train, *_labelled(context))


def sorm_of_rollouts(context: StageContext) -> dict[str, Any]:
    """SORM: the balanced step labels, or at the same steps what `sorm.target` makes of the rollouts."""
    config = context.config
    soft_labels.check_target(config.sorm.target)
    if config.sorm.target == "any":
        return sorm(context)
    traces, labels = _labelled(context)
    samples = files.read_table(context.input("traces") / "traces.parquet", Solution)
    how = config.labels.consistency, config.labels.propagation
    rollouts = RolloutParts(context.input("labels"))
    targets = soft_labels.targets(config.sorm.target, traces, rollouts, samples, *how)
    return _train_value(context, config.sorm.train, traces, labels, targets)


def _labelled(context: StageContext) -> tuple[list[Solution], list[StepLabels]]:
    folder = context.input("labels")
    traces = files.read_table(folder / "traces.parquet", Solution)
    return traces, files.read_table(folder / "balanced.parquet", StepLabels)
