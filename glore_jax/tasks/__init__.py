"""Tasks: each yields Problems, and may have an oracle that judges steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glore_jax.errors import InputError
from glore_jax.records import Problem
from glore_jax.tasks import arithmetic, gsm8k, jsonl, svamp

Oracle = Callable[[str, Sequence[str]], int]
_PUBLISHED = {module.DATA_SET.name: module for module in (gsm8k, svamp)}


@dataclasses.dataclass(frozen=True)
class Splits:
    """Attributes: train, dev, test; no problem is in two of them."""

    train: list[Problem]
    dev: list[Problem]
    test: list[Problem]


def load(task: Any) -> Splits:
    """Problems of a task's configuration: `name` says which task, the rest is that task's own."""
    if task.name == "arithmetic":
        weights = tuple(task.step_weights)
        if len(weights) != len(arithmetic.STEP_COUNTS) or not sum(weights) > 0:
            raise InputError(
                f"task.step_weights={weights}: expected {len(arithmetic.STEP_COUNTS)} weights, of 2 to 8 steps"
            )
        sizes = {split: getattr(task, split) for split in ("train", "dev", "test")}
        return Splits(
            **{
                split: [arithmetic.make_problem(task.seed, split, i, weights) for i in range(n)]
                for split, n in sizes.items()
            }
        )
    if task.name == "jsonl":
        return Splits(**jsonl.load(task))
    if task.name in _PUBLISHED:
        splits = _PUBLISHED[task.name].load(task)
        return Splits(**{name: rows[: _limit(task, name)] for name, rows in splits.items()})
    raise InputError(f"task.name={task.name!r}: unknown task; there are arithmetic, jsonl, {' and '.join(_PUBLISHED)}")


def sizes(task: Any) -> dict[str, int]:
    """How many problems each split has; of published data sets, which are not read, about."""
    if task.name not in _PUBLISHED:
        splits = load(task)
        return {split: len(getattr(splits, split)) for split in ("train", "dev", "test")}
    found = _PUBLISHED[task.name].SIZES
    return {split: min(_limit(task, split) or size, size) for split, size in found.items()}


def _limit(task: Any, split: str) -> int | None:
    """How many problems of a split are used, the first ones; None for all of them."""
    if task[split] < 0:
        raise InputError(f"task.{split}={task[split]}: expected how many problems to use, or 0 for all")
    return task[split] or None


def files_of(task: Any) -> list[Path]:
    """The user's files that `load` reads."""
    if task.name == "jsonl":
        return [Path(task[split]) for split in ("train", "dev", "test") if task[split]]
    if task.name in _PUBLISHED and task.manual_dir:
        return list(_PUBLISHED[task.name].DATA_SET.files(task.manual_dir).values())
    return []


def oracle(task_name: str) -> Oracle | None:
    """The first-false-step function of a task, or None where nobody knows."""
    return arithmetic.first_false_step if task_name == "arithmetic" else None
