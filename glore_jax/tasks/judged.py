"""Judged solutions as data for value models: files in, rows of train, dev and test out, no question in two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from glore_jax.errors import InputError
from glore_jax.records import Judged, Problem
from glore_jax.tasks import traces
from glore_jax.tasks.splits import same_question, tenth

# What is known of a solution: whether its final answer is right (when), or its first false step (where).
KINDS = {"when": ("right answers", "wrong ones"), "where": ("solutions without an error", "with one")}
SPLITS = ("train", "dev", "test")
_DEV, _TEST = 2, 3  # tenths of the questions; the rest is train


def split_of(question: str) -> str:
    """The split that a question belongs to, whatever file it stands in: half of all are train.

    >>> [split_of(f"What is {i} + 2?") for i in range(6)]
    ['test', 'train', 'test', 'train', 'dev', 'train']
    """
    # The hash of the question alone cuts the splits of published data (tasks/splits.py): all traces of a test set that
    # was cut by it would be in one split.
    place = tenth(f"value model: {same_question(question)}")
    return "dev" if place < _DEV else "test" if place < _DEV + _TEST else "train"


def is_good(kind: str, judged: Judged) -> bool | None:
    """Whether the answer is right (`when`), or every step true (`where`); None where nobody judged that."""
    if kind == "when":
        return judged.right
    return None if judged.first_false is None else judged.first_false < 0


def load(task: Any) -> dict[str, dict[str, list[Judged]]]:
    """Solutions with a verdict by kind and split, of the files `task.when` and `task.where`.

    Raises:
      InputError: a key without files; a file that is not what it should be; an id that two files of a key have; a
        split in which all verdicts are the same.
    """
    for kind in KINDS:
        if not task[kind]:
            raise InputError(
                f"task.{kind} is empty; give one file or more of judged solutions with --config.task.{kind}=FILE "
                "(one file can serve both keys; docs/scoring.md has the formats)"
            )
    return {kind: _split(kind, _read(kind, map(str, task[kind]))) for kind in KINDS}


def files_of(task: Any) -> list[Path]:
    """The user's files that `load` reads."""
    return [Path(str(path)) for kind in KINDS for path in task[kind]]


def _read(kind: str, paths: Iterable[str]) -> list[Judged]:
    """The rows of all files of a key that have its verdict."""
    found: dict[str, Judged] = {}
    for path in paths:
        for row in traces.read(path):
            if row.id in found:
                raise InputError(f"{path}: another file of task.{kind} has the id {row.id!r} too; make them differ")
            found[row.id] = row
    return [row for row in found.values() if is_good(kind, row) is not None]


def _split(kind: str, rows: Sequence[Judged]) -> dict[str, list[Judged]]:
    splits: dict[str, list[Judged]] = {name: [] for name in SPLITS}
    for row in rows:
        splits[split_of(row.question)].append(row)
    for name, found in splits.items():
        good = sum(bool(is_good(kind, row)) for row in found)
        if good in (0, len(found)):
            first, second = KINDS[kind]
            raise InputError(
                f"task.{kind}: of {len(rows)} solutions with a verdict the {name} questions have {good} {first} and "
                f"{len(found) - good} {second}; each split needs some of both, so give more solutions"
            )
    return splits


def problems(split: str, rows: Iterable[Judged]) -> list[Problem]:
    """The questions of some rows, each once; the verdicts stay with the solutions, so there is no answer."""
    questions: dict[str, str] = {}
    for row in rows:
        questions.setdefault(same_question(row.question), row.question)
    return [Problem(f"{split}-{i}", text, "") for i, text in enumerate(questions.values())]
