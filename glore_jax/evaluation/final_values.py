"""WHEN: how well final values tell right answers from wrong ones, of solutions that others wrote.

Pooled over generators an AUROC measures how hard the question is and how good the generator, so it is taken within
each generator, and within each question. Beside it stands the rule "the shorter solution is right", which knows
nothing of either.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from glore_jax.decisions import best_threshold
from glore_jax.errors import InputError
from glore_jax.evaluation.predictions import Predicted, Questions, parts, tuned_on
from glore_jax.evaluation.statistics import (
    Auroc,
    Statistic,
    Sums,
    balanced,
    divide,
    estimate,
    ordered,
    resample_weights,
)
from glore_jax.evaluation.tables import figure, span
from glore_jax.evaluation.value_models import PAPER_THRESHOLD

BINS = 10
WITHIN = "within a question"
DEFINITIONS = {
    "auroc": "Chance that a right solution has a higher final value than a wrong one (ties half): of one generator, "
    "over all questions; or within a question, over all pairs of a right and a wrong solution to one question.",
    "shorter": "The same of the rule that the solution of fewer characters is the right one.",
    "balanced_accuracy": "Mean of the accuracies on right and on wrong solutions; a final value of at least the "
    "threshold means right. On the part that the threshold was not tuned on.",
    "calibration_error": "Expected calibration error: mean over all solutions of the distance between mean final value "
    f"and share of right solutions in their bin, of {BINS} bins of equal width.",
}


@dataclasses.dataclass(frozen=True)
class _Answers:
    """Final values and what is known of the answers, each [M]; see `Questions`."""

    values: np.ndarray
    right: np.ndarray
    shortness: np.ndarray
    questions: Questions

    @classmethod
    def of(cls, items: Sequence[Predicted]) -> _Answers:
        return cls(
            np.array([item.values[-1] for item in items]),
            np.array([item.judged.right for item in items], bool),
            np.array([-sum(map(len, item.judged.steps)) for item in items], float),
            Questions.of(items),
        )


def tune(items: Sequence[Predicted]) -> float:
    """The threshold of the best balanced accuracy, of the solutions whose answers are known."""
    answers = _Answers.of([item for item in items if item.judged.right is not None])
    return best_threshold(lambda limit: float(balanced(_hits(answers, limit).sum(axis=0))))


def within(items: Sequence[Predicted]) -> dict[str, float | None]:
    """AUROC within a question, with its 95 % interval, of solutions whose answers are known."""
    answers = _Answers.of(items)
    weights = resample_weights(range(answers.questions.count))
    return dataclasses.asdict(estimate(Sums(_pairs(answers, answers.values)), weights))


def measure(items: Sequence[Predicted], threshold: float | None = None) -> dict[str, Any]:
    """AUROCs and calibration over all solutions, and the accuracy at 0.5 and at the tuned threshold on one part.

    Args:
      threshold: where it was tuned on other questions; there is no dev part then, and all solutions are measured.

    Returns:
      `left_out` (solutions of which nobody knows whether the answer is right), `solutions`, `questions`, `rows` (one
      a generator, and within a question), `threshold` (tuned), `dev` and `measured` (solutions of the two parts),
      `accuracies` (one a threshold), `calibration_error` and `bins`. Figures have a value and a 95 % interval.

    Raises:
      InputError: no answer is known, or a part has none that is right or none that is wrong.
    """
    known = [item for item in items if item.judged.right is not None]
    if not known:
        raise InputError("of no solution is it known whether its answer is right; give a file that says so")
    answers = _Answers.of(known)
    dev = np.zeros(len(known), bool)
    if threshold is None:
        dev = parts(known, list(answers.right), ("right answers", "wrong ones"))
        threshold = tune([item for item, inside in zip(known, dev, strict=True) if inside])
    weights = resample_weights(range(answers.questions.count))

    def found(statistic: Statistic) -> dict[str, Any]:
        return dataclasses.asdict(estimate(statistic, weights))

    generators = [item.judged.generator or "not said" for item in known]
    limits = dict.fromkeys((PAPER_THRESHOLD, threshold))
    rest = {limit: answers.questions.sums(_hits(answers, limit) * ~dev[:, None]) for limit in limits}
    return {
        "left_out": len(items) - len(known),
        "solutions": len(known),
        "questions": answers.questions.count,
        "rows": [
            {"name": name, "solutions": count, "right": right}
            | {"auroc": found(of_values), "shorter": found(of_shortness)}
            for name, count, right, of_values, of_shortness in _aurocs(answers, generators)
        ],
        "threshold": threshold,
        "dev": int(dev.sum()),
        "measured": int((~dev).sum()),
        "accuracies": [
            {"threshold": limit, "right": int(sums[:, 1].sum()), "wrong": int(sums[:, 3].sum())}
            | {"accuracy_right": found(Sums(sums[:, :2])), "accuracy_wrong": found(Sums(sums[:, 2:]))}
            | {"balanced_accuracy": found(Sums(sums, balanced))}
            for limit, sums in rest.items()
        ],
        "calibration_error": found(Sums(answers.questions.sums(_binned(answers)), calibration_error)),
        "bins": _bins(answers),
    }


def _aurocs(answers: _Answers, generators: Sequence[str]) -> Iterator[tuple[str, int, int, Statistic, Statistic]]:
    """Name, solutions, right ones, and the AUROC by value and by shortness: of each generator, and within questions."""
    owner, names = answers.questions.owner, np.array(generators)
    for name in sorted(set(generators)):
        inside = names == name
        right, stratum = answers.right[inside], np.zeros(int(inside.sum()))
        of = [Auroc(scores[inside], right, owner[inside], stratum) for scores in (answers.values, answers.shortness)]
        yield name, len(right), int(right.sum()), of[0], of[1]
    # Sums of each question's pairs: a question drawn twice has its pairs twice, none between its two copies.
    within = [Sums(_pairs(answers, scores)) for scores in (answers.values, answers.shortness)]
    yield WITHIN, len(owner), int(answers.right.sum()), within[0], within[1]


def _pairs(answers: _Answers, scores: np.ndarray) -> np.ndarray:
    """[Q, 2]: pairs of a right and a wrong solution to each question that the scores order rightly, and all."""
    sides: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for owner, right, score in zip(answers.questions.owner, answers.right, scores, strict=True):
        sides[owner][not right].append(score)
    return np.array([ordered(*sides[question]) for question in range(answers.questions.count)])


def _hits(answers: _Answers, threshold: float) -> np.ndarray:
    """[M, 4]: right answers called right, right answers, wrong ones called wrong, wrong ones."""
    right, said = answers.right, answers.values >= threshold
    return np.stack([said & right, right, ~said & ~right, ~right], axis=1).astype(float)


def _places(answers: _Answers) -> np.ndarray:
    """The bin of each final value, 1 in the last one."""
    return np.minimum((answers.values * BINS).astype(int), BINS - 1)


def _binned(answers: _Answers) -> np.ndarray:
    """[M, 3 * BINS]: what each solution adds to the count, the values and the right answers of each bin."""
    inside = np.eye(BINS)[_places(answers)]
    return np.concatenate([inside, inside * answers.values[:, None], inside * answers.right[:, None]], axis=1)


def calibration_error(sums: np.ndarray) -> np.ndarray:
    """[..., (counts, sums of values, right answers), a column a bin] -> expected calibration error.

    One bin of 4 solutions, values of 0.9 in the mean, 3 right: |3.6 - 3| / 4.

    >>> calibration_error(np.array([4.0, 0.0, 3.6, 0.0, 3.0, 0.0])).round(3)
    np.float64(0.15)
    """
    counts, values, right = np.split(sums, 3, axis=-1)
    return divide(np.abs(values - right).sum(axis=-1), counts.sum(axis=-1))


def _bins(answers: _Answers) -> list[dict[str, Any]]:
    """Count, mean value and share of right answers of each bin that has any."""
    counts, values, right = np.split(_binned(answers).sum(axis=0), 3)
    return [
        {"low": i / BINS, "high": (i + 1) / BINS, "solutions": int(n), "mean_value": v / n, "right": r / n}
        for i, (n, v, r) in enumerate(zip(counts.tolist(), values.tolist(), right.tolist(), strict=True))
        if n
    ]


def tables(result: dict[str, Any]) -> Iterator[Table | Text]:
    """What `measure` found, to print."""
    table = _table("Final values: AUROC in percent, 95 % interval over questions", "solutions of")
    for column in ("number", "right", "AUROC", "interval", "shorter is right"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["rows"]:
        if row["name"] == WITHIN:
            table.add_section()
        auroc, share = row["auroc"], figure(row["right"] / row["solutions"])
        shown = (figure(auroc["value"]), span(auroc["low"], auroc["high"]), figure(row["shorter"]["value"]))
        table.add_row(row["name"], str(row["solutions"]), share, *shown)
    yield table
    table = _table("Right or wrong by a threshold, percent", "threshold")
    for column in ("on right", "on wrong", "balanced", "interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["accuracies"]:
        both = row["balanced_accuracy"]
        halves = (figure(row[f"accuracy_{side}"]["value"]) for side in ("right", "wrong"))
        table.add_row(f"{row['threshold']:g}", *halves, figure(both["value"]), span(both["low"], both["high"]))
    yield table
    yield Text(tuned_on(result, "the best balanced accuracy"))
    table = _table("Calibration, percent", "final value")
    for column in ("solutions", "mean value", "right"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["bins"]:
        width = f"{figure(row['low'])} to {figure(row['high'])}"
        table.add_row(width, str(row["solutions"]), figure(row["mean_value"]), figure(row["right"]))
    yield table
    error = result["calibration_error"]
    shown = f"Expected calibration error {figure(error['value'])} % ({span(error['low'], error['high'])})"
    yield Text(f"{shown}, of {result['solutions']} solutions to {result['questions']} questions.")
    if result["left_out"]:
        yield Text(f"Left out, as nobody knows whether the answer is right: {result['left_out']} solutions.")


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    return table
