"""WHERE: how well step values find the first false step of solutions that others wrote and judged.

As ProcessBench (Zheng et al., 2024) defines it: *error accuracy* is the share of solutions with an error whose first
false step is named exactly, *clean accuracy* the share of those without one in which none is named, and F1 the
harmonic mean of the two. Named is the first step of a value under the threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from glore_jax.decisions import best_threshold, first_below
from glore_jax.errors import InputError
from glore_jax.evaluation.predictions import Predicted, Questions, parts, tuned_on
from glore_jax.evaluation.statistics import Sums, estimate, harmonic, resample_weights
from glore_jax.evaluation.tables import figure, span
from glore_jax.evaluation.value_models import PAPER_THRESHOLD, location_sums

DEFINITIONS = {
    "error_accuracy": "Solutions with an error (errors) whose first false step is the first of a value under the "
    "threshold.",
    "clean_accuracy": "Solutions without an error (clean) of which no step has a value under the threshold.",
    "f1": "Harmonic mean of error_accuracy and clean_accuracy, as ProcessBench has it.",
    "random_step": "Share of the measured solutions with an error in which a step drawn at random is the first false.",
}


def measure(items: Sequence[Predicted], threshold: float | None = None) -> dict[str, Any]:
    """Figures at 0.5 and at the tuned threshold, on the part that the latter was not tuned on.

    Args:
      threshold: where it was tuned on other questions; there is no dev part then, and all solutions are measured.

    Returns:
      `threshold` (tuned), `left_out` (solutions whose first error nobody judged), `dev` and `measured` (solutions
      of the two parts), `random_step`, and `rows`: one a group and threshold, with a value and a 95 % interval each
      for `error_accuracy`, `clean_accuracy` and `f1`. Groups are all, then each subset and each generator where there
      are several.

    Raises:
      InputError: no solution is judged, or a part has no solution with an error or none without.
    """
    known = [item for item in items if item.judged.first_false is not None]
    if not known:
        raise InputError("no solution has a first false step, or -1 for none; give a file in which that is judged")
    dev = np.zeros(len(known), bool)
    if threshold is None:
        dev = parts(known, [item.judged.first_false != -1 for item in known], ("solutions with an error", "without"))
        threshold = tune([item for item, inside in zip(known, dev, strict=True) if inside])
    rest = [item for item, inside in zip(known, dev, strict=True) if not inside]
    questions = Questions.of(rest)
    weights = resample_weights(range(questions.count))
    rows = []
    for group, name, members in groups(rest):
        for limit in dict.fromkeys((PAPER_THRESHOLD, threshold)):
            sums = questions.sums(_sums(rest, limit) * members[:, None])
            parts_of = {"error_accuracy": Sums(sums[:, :2]), "clean_accuracy": Sums(sums[:, 2:])}
            figures = {**parts_of, "f1": Sums(sums, harmonic)}
            rows.append(
                {"group": group, "name": name, "threshold": limit}
                | {"errors": int(sums[:, 1].sum()), "clean": int(sums[:, 3].sum())}
                | {key: dataclasses.asdict(estimate(statistic, weights)) for key, statistic in figures.items()}
            )
    return {
        "threshold": threshold,
        "left_out": len(items) - len(known),
        "dev": int(dev.sum()),
        "measured": len(rest),
        "random_step": float(np.mean([1 / len(i.values) for i in rest if i.judged.first_false != -1])),
        "rows": rows,
    }


def _sums(items: Sequence[Predicted], threshold: float) -> np.ndarray:
    """[M, 4] of `location_sums`."""
    return location_sums([first_below(i.values, threshold) for i in items], [i.judged.first_false for i in items])


def tune(items: Sequence[Predicted]) -> float:
    """The threshold of the best F1."""
    return best_threshold(lambda threshold: float(harmonic(_sums(items, threshold).sum(axis=0))))


def groups(items: Sequence[Predicted]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(kind, name, which items) of all items, and of each subset and each generator where there are several."""
    yield "all", "all", np.ones(len(items))
    for kind in ("subset", "generator"):
        names = np.array([getattr(item.judged, kind) or "not said" for item in items])
        if len(found := sorted(set(names))) > 1:
            yield from ((kind, name, (names == name).astype(float)) for name in found)


def tables(result: dict[str, Any]) -> Iterator[Table | Text]:
    """What `measure` found, to print."""
    table = Table(title="First error: percent, 95 % interval of F1 over questions", title_justify="left")
    table.add_column("solutions of", overflow="fold")
    for column in ("at", "errors", "error\nacc.", "clean", "clean\nacc.", "F1", "interval"):
        table.add_column(column, justify="right", no_wrap=True)
    before = "all"
    for row in result["rows"]:
        if row["group"] != before:
            table.add_section()
            before = row["group"]
        f1 = row["f1"]
        table.add_row(
            row["name"],
            f"{row['threshold']:g}",
            str(row["errors"]),
            figure(row["error_accuracy"]["value"]),
            str(row["clean"]),
            figure(row["clean_accuracy"]["value"]),
            figure(f1["value"]),
            span(f1["low"], f1["high"]),
        )
    yield table
    yield Text(
        f"{tuned_on(result, 'the best F1')}\n"
        f"A step drawn at random is the first error in {figure(result['random_step'])} % of those with one."
    )
    if result["left_out"]:
        yield Text(f"Left out, as nobody judged their first error: {result['left_out']} solutions.")
