"""Solutions that others wrote and judged, beside the step values that a model gave them.

A resample draws questions, with all solutions to them. A threshold is chosen on the *dev part*: the questions that a
hash puts there, so that no question is in both parts, and every file is cut the same way wherever it is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glore_jax.errors import InputError
from glore_jax.evaluation.value_models import PAPER_THRESHOLD
from glore_jax.records import Judged
from glore_jax.tasks import rows
from glore_jax.tasks.splits import same_question, tenth

DEV_TENTHS = 3
_NAMED = 3  # how many ids an error names


@dataclasses.dataclass(frozen=True)
class Predicted:
    """A solution and its step values, one a step."""

    judged: Judged
    values: tuple[float, ...]


def read(path: str | Path, solutions: Sequence[Judged]) -> list[Predicted]:
    """The solutions with their values from a file with `id` and `values`, as `glore score` writes it; in their order.

    Raises:
      InputError: with file and row: a column missing, values that are no probabilities, or not one a step; ids that
        come twice, that no solution has, or that are lacking.
    """
    known = {judged.id: judged for judged in solutions}
    found: dict[str, tuple[float, ...]] = {}
    unknown: list[str] = []
    for where, row in rows.read(path, "id and values"):
        name = str(row.get("id"))
        if "id" not in row or "values" not in row:
            raise InputError(f"{where}: expected id and values, found {', '.join(row) or 'nothing'}")
        if name in found:
            raise InputError(f"{where}: the id {name!r} again; keep one row a solution")
        found[name] = _values(row["values"], where)
        if name not in known:
            unknown.append(name)
        elif len(found[name]) != len(known[name].steps):
            raise InputError(
                f"{where}: {len(found[name])} values for the {len(known[name].steps)} steps of {name!r}; expected one "
                "a step: score the same file that is measured"
            )
    missing = [name for name in known if name not in found]
    if unknown or missing:
        kinds = ((missing, "solutions have no values"), (unknown, "ids are of no solution"))
        problems = (f"{len(ids)} {what} ({_some(ids)})" for ids, what in kinds if ids)
        raise InputError(f"{path}: {', and '.join(problems)}; score the same file that is measured")
    return [Predicted(judged, found[judged.id]) for judged in solutions]


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")


def _values(found: Any, where: str) -> tuple[float, ...]:
    numbers = isinstance(found, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 for value in found
    )
    if not numbers:
        raise InputError(f"{where}: expected 'values' to be a list of probabilities, 0 to 1; found {found!r:.80}")
    return tuple(float(value) for value in found)


def in_dev(judged: Judged) -> bool:
    """Whether the question of a solution is in the dev part, three tenths of all.

    >>> [in_dev(Judged("", f"What is {i} + 2?", ("It is.",))) for i in range(8)]
    [True, False, True, False, False, True, False, False]
    """
    # The hash of the question alone cuts the splits of published data (tasks/splits.py): all of a test set that was
    # cut by it would be in one part.
    return tenth(f"threshold: {same_question(judged.question)}") < DEV_TENTHS


def parts(items: Sequence[Predicted], truth: Sequence[bool], classes: tuple[str, str]) -> np.ndarray:
    """For each item whether it is in the dev part.

    Args:
      truth: of each item, and what true and false ones are called.

    Raises:
      InputError: one of the two parts lacks one of the two classes, so there is nothing to tune or to measure.
    """
    dev, true = np.array([in_dev(item.judged) for item in items], bool), np.array(truth, bool)
    counts = [int((part & side).sum()) for part in (dev, ~dev) for side in (true, ~true)]
    if not all(counts):
        a, b, c, d = counts
        raise InputError(
            f"the part that thresholds are tuned on has {a} {classes[0]} and {b} {classes[1]}, the part that is "
            f"measured {c} and {d}; each needs some of both, so give a larger file"
        )
    return dev


def tuned_on(result: Mapping[str, Any], best: str) -> str:
    """What a reader must know of a threshold: what it is best at, chosen on which solutions, measured on which.

    Args:
      result: with `threshold`, `dev` and `measured` (solutions of the two parts); dev is 0 where the threshold was
        tuned on other questions.
    """
    limit, where = f"Threshold {result['threshold']:g}", f"at it and at {PAPER_THRESHOLD}"
    if not result["dev"]:
        return f"{limit} gave {best} on dev; these figures are on {result['measured']} solutions, {where}."
    return (
        f"{limit} is {best} on {result['dev']} solutions, to {DEV_TENTHS} tenths of the questions; these figures are "
        f"on the other {result['measured']}, {where}."
    )


@dataclasses.dataclass(frozen=True)
class Questions:
    """The questions of some items, which resamples draw.

    Attributes:
      owner: for each item the number of its question, [M].
      count: of questions, Q.
    """

    owner: np.ndarray
    count: int

    @classmethod
    def of(cls, items: Sequence[Predicted]) -> Questions:
        place: dict[Hashable, int] = {}
        owner = [place.setdefault(same_question(item.judged.question), len(place)) for item in items]
        return cls(np.array(owner, int), len(place))

    def sums(self, rows_MxK: np.ndarray) -> np.ndarray:
        """What each question adds, [Q, K], of what each item adds."""
        out = np.zeros((self.count, rows_MxK.shape[1]))
        np.add.at(out, self.owner, rows_MxK)
        return out
