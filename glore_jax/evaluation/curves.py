"""Figures that are a line, not a number: by prefix length, by position, by number of steps, by k, by value.

Each point is {"x", "value", "low", "high", "count", "denominator"}; points with nothing to count are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from glore_jax.evaluation.refinements import (
    NUM_CANDIDATES,
    best_sample,
    chosen,
    draft_right,
    min_samples,
    pass_measure,
    right,
)
from glore_jax.evaluation.runs import Measure, Run, Walk, num_gold_steps, rate
from glore_jax.evaluation.statistics import Sums, balanced, estimate
from glore_jax.evaluation.value_models import TITLES, at_paper, class_sums, judged, models_of, prefix_truth, prefixes
from glore_jax.rankers import final_value
from glore_jax.records import Candidate

CALIBRATION_BINS = 10


def _point(x: float, measure: Measure, weights: np.ndarray) -> dict[str, Any]:
    found = dataclasses.asdict(estimate(measure.statistic, weights))
    return {"x": x, **found, "count": measure.count, "denominator": measure.denominator}


def _points(measures: Iterable[tuple[float, Measure]], weights: np.ndarray) -> list[dict[str, Any]]:
    points = [_point(x, measure, weights) for x, measure in measures if measure.denominator]
    return [point for point in points if point["value"] is not None]


def _num_steps(walks: Sequence[Walk]) -> int:
    return max(walk.case.draft.solution.num_steps for walk in walks)


def pass_at_k(walks: Sequence[Walk], weights: np.ndarray) -> list[dict[str, Any]]:
    """pass@k for every k that the samples allow."""
    return _points(((k, pass_measure(walks, k)) for k in range(1, min_samples(walks) + 1)), weights)


def step_accuracy_by_prefix(walks: Sequence[Walk], model: str, weights: np.ndarray) -> list[dict[str, Any]]:
    """Balanced accuracy at 0.5 on the prefixes of each length, where both classes occur."""

    def measure(length: int) -> Measure:
        sums = class_sums(walks, model, at_paper, only=length)
        return Measure(model, Sums(sums, balanced), "", None, int(sums[:, [1, 3]].sum()))

    return _points(((i, measure(i)) for i in range(1, _num_steps(walks) + 1)), weights)


def step_true_by_position(
    walks: Sequence[Walk], pool: Callable[[Walk], Sequence[Candidate]], weights: np.ndarray
) -> list[dict[str, Any]]:
    """Chance that step i (from 1) is true, over solutions that have it and whose earlier steps are all true."""

    def counts(walk: Walk, step: int) -> tuple[float, float]:
        truths = [prefix_truth(candidate) for candidate in pool(walk)]
        reached = [t[step] for t in truths if len(t) > step and (step == 0 or t[step - 1])]
        return float(sum(reached)), float(len(reached))

    return _points(
        ((i + 1, rate("", [counts(walk, i) for walk in walks], "")) for i in range(_num_steps(walks))), weights
    )


def accuracy_by_steps(walks: Sequence[Walk], hit: Callable[[Walk], bool], weights: np.ndarray) -> list[dict[str, Any]]:
    """Right answers over the problems whose own solution takes x computing steps."""
    steps = [num_gold_steps(walk.case) for walk in walks]
    hits = [float(hit(walk)) for walk in walks]

    def measure(length: int) -> Measure:
        pairs = [(h, 1.0) if s == length else (0.0, 0.0) for h, s in zip(hits, steps, strict=True)]
        return rate("", pairs, "")

    return _points(((length, measure(length)) for length in sorted(set(steps) - {0})), weights)


def calibration(items: Sequence[list[tuple[float, bool]]], weights: np.ndarray) -> list[dict[str, Any]]:
    """How often (value, truth) items are true, by value, in bins of equal width; x is the bin's mean value."""
    points, bins = [], CALIBRATION_BINS
    for number in range(bins):
        inside = [
            [(value, truth) for value, truth in row if min(int(value * bins), bins - 1) == number] for row in items
        ]
        values = [value for row in inside for value, _ in row]
        if values:
            measure = rate("", [(sum(truth for _, truth in row), len(row)) for row in inside], "")
            points.append((float(np.mean(values)), measure))
    return _points(points, weights)


def label_rates(runs: Sequence[Run]) -> dict[str, list[dict[str, Any]]]:
    """Positive rate of the SORM labels by prefix length, after each post-processing step, summed over runs."""
    sums: dict[str, dict[int, np.ndarray]] = {}
    for run in runs:
        for entry in run.label_audit.get("rates", []):
            lengths = sums.setdefault(entry["stage"], {})
            lengths.setdefault(entry["prefix"], np.zeros(2, dtype=int))
            lengths[entry["prefix"]] += (entry["positive"], entry["count"])
    return {
        stage: [
            {"x": length, "value": float(p / n), "low": None, "high": None, "count": int(p), "denominator": int(n)}
            for length, (p, n) in sorted(lengths.items())
            if n
        ]
        for stage, lengths in sums.items()
    }


def curves_of(walks: Sequence[Walk], runs: Sequence[Run], weights: np.ndarray) -> dict[str, Any]:
    """Every curve: name -> {series -> points}; training curves as the run wrote them, for a single run only."""
    models = models_of(walks)
    enough = min_samples(walks) >= NUM_CANDIDATES
    curves: dict[str, dict[str, Any]] = {
        "pass_at_k": {"student": pass_at_k(walks, weights)},
        "accuracy_by_steps": {
            "draft": accuracy_by_steps(walks, draft_right, weights),
            "system": accuracy_by_steps(walks, lambda w: right(chosen(w)), weights),
        },
        "calibration_final": {
            TITLES[m]: calibration([[(final_value(w.case.draft, m), draft_right(w))] for w in walks], weights)
            for m in models
        },
        "label_rates": label_rates(runs),
        "training": dict(runs[0].training_curves) if len(runs) == 1 else {},
    }
    if enough:
        best = accuracy_by_steps(walks, lambda w: right(best_sample(w)), weights)
        curves["accuracy_by_steps"]["best of 3"] = best
    if judged(walks):
        curves["student_step_accuracy"] = {
            "greedy draft": step_true_by_position(walks, lambda w: [w.case.draft], weights),
            "samples": step_true_by_position(walks, lambda w: w.case.samples, weights),
        }
        curves["step_accuracy_by_prefix"] = {TITLES[m]: step_accuracy_by_prefix(walks, m, weights) for m in models}
        curves["calibration_step"] = {
            TITLES[m]: calibration([prefixes(w.case.draft, m) for w in walks], weights) for m in models
        }
    return curves
