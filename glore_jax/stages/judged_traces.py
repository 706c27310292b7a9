"""Stages of the recipe `traces_value`: an ORM and a SORM from solutions that others wrote and judged.

There is no student and there are no rollouts: the verdicts are the labels. The stages put them where those of the
recipe `glore` look for theirs, so the value models are trained by the same code (`stages/verifiers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.evaluation import judged_values
from glore_jax.evaluation.predictions import Predicted
from glore_jax.evaluation.value_models import PAPER_THRESHOLD
from glore_jax.method import base_model, reward_models
from glore_jax.method import expert_iteration as ei
from glore_jax.method import labels as labelling
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.parallel import hosts
from glore_jax.pipeline import StageContext
from glore_jax.records import Judged, Problem, Scored, Solution, StepLabels
from glore_jax.stages import artifacts, scoring, taking_base
from glore_jax.tasks import judged
from glore_jax.tasks.splits import same_question
from glore_jax.text import formats, tokenizers
from glore_jax.text.tokenizers import OwnTokenizer, Tokenizer
from glore_jax.training import losses

MODELS = {"when": "orm", "where": "sorm"}  # who is asked about which verdict
MEASURED = ("dev", "test")


def problems(context: StageContext) -> dict[str, Any]:
    """Writes the questions of each split, and the judged solutions to them by kind of verdict."""
    rows = judged.load(context.config.task)
    counts = {}
    for split in artifacts.SPLITS:
        for kind in judged.KINDS:
            files.write_table(context.folder / _name(kind, split), rows[kind][split], Judged)
            counts[f"{split}_{kind}"] = len(rows[kind][split])
        questions = judged.problems(split, (row for kind in judged.KINDS for row in rows[kind][split]))
        files.write_table(context.folder / f"{split}.parquet", questions, Problem)
        counts[f"{split}_questions"] = len(questions)
    return counts


def _name(*words: str) -> str:
    return f"{'-'.join(words)}.parquet"


def _rows(context: StageContext, kind: str, split: str) -> list[Judged]:
    return files.read_table(context.input("problems") / _name(kind, split), Judged)


def base_files(config: Any) -> list[Path]:
    """The files of the base model, where one is given."""
    return taking_base.files_of(config) if config.base.path else []


def base(context: StageContext) -> dict[str, Any]:
    """Takes the base model that was given, or makes one: a language model of the good solutions of train."""
    c = context.config
    if c.value.init != "base":
        raise InputError(f"value.init={c.value.init!r}: expected base; the recipe traces_value has no student")
    if c.base.adapter and not c.base.path:
        raise InputError("base.adapter is given, but no model that it is for; give --config.base.path=FOLDER too")
    if c.base.path:
        tokenizer = taking_base.tokenizer_of(c)
        model = taking_base.describe(c, tokenizer)
        _check_lengths(context, tokenizer, model)
        return taking_base.take(context, tokenizer)
    rows = {kind: _rows(context, kind, "train") for kind in judged.KINDS}
    tokenizer = _train_tokenizer([row for found in rows.values() for row in found], c.vocabulary)
    good = [row for kind, found in rows.items() for row in found if judged.is_good(kind, row)]
    questions = artifacts.read_problems(context, "train")
    solutions = as_solutions(tokenizer, questions, good)
    examples = ei.student_examples(tokenizer, questions, solutions, c.model.prefix_lm)
    config = DecoderConfig(vocab_size=tokenizer.vocab_size, **c.model.to_dict(), dtype=c.train_dtype)
    model = Decoder(config)
    params = {"decoder": base_model.init(model, context.seed)}
    trained, counts = artifacts.train(context, model, params, losses.language, examples, c.pretrain.train, tokenizer)
    artifacts.write_trained(context.folder, trained, config)
    artifacts.write_tokenizer(context.folder, tokenizer)
    return counts | {"vocabulary": tokenizer.vocab_size}


def _check_lengths(context: StageContext, tokenizer: Tokenizer, model: DecoderConfig) -> None:
    """InputError where rows, or solutions that are measured, are longer than the model was made for."""
    for name in MODELS.values():
        length = context.config[name].train.row_length
        if length > model.max_positions > 0:
            raise InputError(
                f"{name}.train.row_length={length}: the base model was made for {model.max_positions} tokens; lower it"
            )
    for kind in MODELS:
        rows = [row for split in MEASURED for row in _rows(context, kind, split)]
        scoring.check_lengths(rows, scoring.read_with(tokenizer, rows, model.vocab_size), model.max_positions)


def _train_tokenizer(rows: Sequence[Judged], vocabulary: int) -> OwnTokenizer:
    texts = (text for row in rows for text in (row.question, *scoring.lines(row)))
    try:
        return tokenizers.train(texts, vocabulary)
    except RuntimeError as error:  # SentencePiece says why: fewer pieces than there are marks, bytes and characters
        raise InputError(f"vocabulary={vocabulary}: no tokenizer can be made with it ({error})") from error


def as_solutions(tokenizer: Tokenizer, questions: Sequence[Problem], rows: Sequence[Judged]) -> list[Solution]:
    """Judged solutions in tokens; `right` where the final answer is known to be so."""
    ids = {same_question(problem.question): problem.id for problem in questions}
    found = []
    for row in rows:
        steps = scoring.lines(row)
        tokens, ends = formats.encode_solution(tokenizer, steps)
        problem = ids[same_question(row.question)]
        found.append(Solution(row.id, problem, tuple(tokens), ends, "\n".join(steps), bool(row.right)))
    return found


def _train_solutions(context: StageContext, kind: str) -> tuple[list[Judged], list[Solution]]:
    rows = _rows(context, kind, "train")
    return rows, as_solutions(artifacts.read_tokenizer(context), artifacts.read_problems(context, "train"), rows)


def traces(context: StageContext) -> dict[str, Any]:
    """Solutions of train with their final labels, in tokens: what the ORM learns from."""
    _, found = _train_solutions(context, "when")
    files.write_table(context.folder / "traces.parquet", found, Solution)
    return {"traces": len(found), "right": sum(s.right for s in found) / len(found)}


def labels(context: StageContext) -> dict[str, Any]:
    """Solutions of train with step labels from their first false step: what the SORM learns from."""
    rows, found = _train_solutions(context, "where")
    made = [StepLabels(row.id, labelling.from_first_false(row.first_false, len(row.steps))) for row in rows]
    kept = labelling.balance(made, context.seed) if context.config.labels.balance else made
    flat = [x for entry in kept for x in entry.labels if x >= 0]
    if len(set(flat)) < 2:
        raise InputError(
            f"task.where: {len(flat)} step labels of train are left, all of one class (labels.balance="
            f"{context.config.labels.balance}); give more solutions with and without errors"
        )
    files.write_table(context.folder / "traces.parquet", found, Solution)
    files.write_table(context.folder / "balanced.parquet", kept, StepLabels)
    return {"traces": len(found), "labels": len(flat), "positive": sum(flat) / len(flat)}


def values(context: StageContext) -> dict[str, Any]:
    """Reads the values of all solutions of dev and test; a cut run goes on after its last table."""
    tokenizer = artifacts.read_tokenizer(context)
    counts = {}
    for kind, name in MODELS.items():
        model, params = artifacts.read_model(context.input(name), "float32", context.sampling_placement.of_process())
        for split in MEASURED:
            rows, path = _rows(context, kind, split), context.folder / _name(kind, split)
            counts[f"{split}_{kind}"] = len(rows)
            if hosts.of_lead(f"{name}, {split}", path.exists):
                continue
            readings = scoring.read_with(tokenizer, rows, model.config.vocab_size)
            with context.progress(len(rows), "solutions", f"{name}, {split}") as bar:
                found = reward_models.values(model, params, readings, bar.advance, context.sampling_placement)
            artifacts.write_table(path, scoring.scored(rows, found, PAPER_THRESHOLD), Scored)
    return counts


def measures(context: StageContext) -> dict[str, Any]:
    """Measures each model on test, at a threshold that is chosen on dev; writes metrics.json."""
    items = {kind: {split: _predicted(context, kind, split) for split in MEASURED} for kind in MODELS}
    metrics = judged_values.measure(items, _rows(context, "when", "train"))
    files.write_json(context.folder / "metrics.json", metrics)
    return judged_values.summary(metrics)


def _predicted(context: StageContext, kind: str, split: str) -> list[Predicted]:
    found = files.read_table(context.input("values") / _name(kind, split), Scored)
    return [Predicted(row, scored.values) for row, scored in zip(_rows(context, kind, split), found, strict=True)]
