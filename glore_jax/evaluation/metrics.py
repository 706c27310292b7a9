"""All figures of a report: rows with intervals, differences, the label ablation, curves and claims."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glore_jax.decisions import REFINERS
from glore_jax.evaluation import claims, curves
from glore_jax.evaluation.refinements import (
    baseline_measures,
    fix_measures,
    refiner_measures,
    student_measures,
    system_measures,
)
from glore_jax.evaluation.runs import Measure, Run, Walk, rate, walks_of
from glore_jax.evaluation.statistics import RESAMPLES, estimate, interval, point, resample_weights
from glore_jax.evaluation.value_models import final_measures, first_error_measures, judged, models_of, step_measures

# The paper's figures (GSM8K, LLaMA-2 13B), where it gives one.
PAPER = {
    "student_accuracy": 0.53,
    "system_accuracy": 0.65,
    "orm_step_accuracy": 0.73,
    "sorm_step_accuracy": 0.81,
    "global_fix_rate": 0.281,
    "local_fix_rate": 0.283,
    "union_fix_rate": 0.41,
    "sorm_label_accuracy": 0.94,
    "sorm_minus_orm_step_accuracy": 0.08,
    "system_minus_student": 0.12,
}

# Paired differences: name -> (row, minus row).
DIFFERENCES = {
    "system_minus_student": ("system_accuracy", "student_accuracy"),
    "system_minus_best_of_3": ("system_accuracy", "best_of_3_accuracy"),
    "system_minus_majority_of_3": ("system_accuracy", "majority_of_3_accuracy"),
    "system_minus_gated_global": ("system_accuracy", "gated_global_accuracy"),
    "system_minus_refine_all_global": ("system_accuracy", "refine_all_global_accuracy"),
    "system_minus_reranked_global": ("system_accuracy", "global_reranked_accuracy"),
    "system_minus_gated_local": ("system_accuracy", "gated_local_accuracy"),
    "system_minus_refine_all_local": ("system_accuracy", "refine_all_local_accuracy"),
    "system_minus_reranked_local": ("system_accuracy", "local_reranked_accuracy"),
    "gated_minus_refine_all_global": ("gated_global_accuracy", "refine_all_global_accuracy"),
    "gated_minus_refine_all_local": ("gated_local_accuracy", "refine_all_local_accuracy"),
    "sorm_minus_orm_step_accuracy": ("sorm_step_accuracy", "orm_step_accuracy"),
    "sorm_minus_orm_step_accuracy_tuned": ("sorm_step_accuracy_tuned", "orm_step_accuracy_tuned"),
    "sorm_minus_orm_step_auroc": ("sorm_step_auroc", "orm_step_auroc"),
    "sorm_minus_orm_first_error_f1": ("sorm_first_error_f1", "orm_first_error_f1"),
    "sorm_minus_orm_first_error_f1_tuned": ("sorm_first_error_f1_tuned", "orm_first_error_f1_tuned"),
    "orm_minus_sorm_final_accuracy": ("orm_final_accuracy", "sorm_final_accuracy"),
    "orm_minus_sorm_final_auroc": ("orm_final_auroc", "sorm_final_auroc"),
}


def label_measures(runs: Sequence[Run]) -> list[Measure]:
    """SORM labels against the oracle; a resample draws whole labelled traces."""
    audits = [run.label_audit["sorm_label_accuracy"] for run in runs if "sorm_label_accuracy" in run.label_audit]
    pairs = [pair for audit in audits for pair in audit["per_trace"]]
    definition = "SORM labels (after all post-processing) that the oracle shares, over all labelled steps."
    return [rate("sorm_label_accuracy", pairs, definition, traces=len(pairs))] if pairs else []


def measures_of(walks: Sequence[Walk], runs: Sequence[Run]) -> dict[str, list[Measure]]:
    """Every measure, by the heading it stands under."""
    models = models_of(walks)
    located = judged(walks)
    return {
        "Student": student_measures(walks),
        "System": [
            *system_measures(walks),
            *baseline_measures(walks),
            *(measure for refiner in REFINERS for measure in refiner_measures(walks, refiner)),
        ],
        "Mending wrong drafts": fix_measures(walks),
        "Step values": [measure for model in models if located for measure in step_measures(walks, model)],
        "First error": first_error_measures(walks, models) if located else [],
        "Final values": [measure for model in models for measure in final_measures(walks, model)],
        "Labels": label_measures(runs),
    }


@dataclasses.dataclass(frozen=True)
class Weights:
    """How resamples draw problems, drawn once for all rows, so that every difference of two is paired."""

    problems: np.ndarray
    seed: int
    resamples: int

    @classmethod
    def draw(cls, walks: Sequence[Walk], resamples: int, seed: int) -> Weights:
        return cls(resample_weights([w.case.problem.question for w in walks], resamples, seed), seed, resamples)

    def of(self, measure: Measure) -> np.ndarray:
        """[R, units] of a measure; labelled traces are drawn one by one."""
        return resample_weights(range(measure.traces), self.resamples, self.seed) if measure.traces else self.problems


def points(walks: Sequence[Walk], runs: Sequence[Run]) -> dict[str, float]:
    """Each row's value without an interval, differences included; undefined ones left out."""
    values = {
        measure.name: point(measure.statistic, measure.traces or len(walks))
        for group in measures_of(walks, runs).values()
        for measure in group
    }
    for name, (a, b) in DIFFERENCES.items():
        if a in values and b in values:
            values[name] = values[a] - values[b]
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _row(name: str, value: float, resampled: np.ndarray, count: int | None, denominator: int, definition: str) -> dict:
    return {
        "name": name,
        **dataclasses.asdict(interval(value, resampled)),
        "count": count,
        "denominator": denominator,
        "paper": PAPER.get(name),
        "definition": definition,
    }


def rows_of(walks: Sequence[Walk], runs: Sequence[Run], weights: Weights) -> tuple[list[dict], dict[str, list[str]]]:
    """The rows of the report, differences last, and the names under each heading."""
    rows, drawn = {}, {}
    groups = measures_of(walks, runs)
    for measure in (measure for group in groups.values() for measure in group):
        value = point(measure.statistic, measure.traces or len(walks))
        resampled = measure.statistic(weights.of(measure))
        drawn[measure.name] = value, resampled
        rows[measure.name] = _row(
            measure.name, value, resampled, measure.count, measure.denominator, measure.definition
        )
    headings = {title: [measure.name for measure in group] for title, group in groups.items() if group}
    differences = [(name, a, b) for name, (a, b) in DIFFERENCES.items() if a in drawn and b in drawn]
    for name, a, b in differences:
        (value_a, resampled_a), (value_b, resampled_b) = drawn[a], drawn[b]
        definition = f"{a} minus {b}, paired: both on the same resampled problems ({len(walks)} test problems)."
        rows[name] = _row(name, value_a - value_b, resampled_a - resampled_b, None, len(walks), definition)
    if differences:
        headings["Differences"] = [name for name, _, _ in differences]
    return list(rows.values()), headings


def ablation_of(runs: Sequence[Run], weights: Weights) -> list[dict[str, Any]]:
    """SORM label accuracy with some of the post-processing steps only, in the label audit's order."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        for entry in run.label_audit.get("ablation", []):
            pairs.setdefault(entry["name"], []).extend(tuple(pair) for pair in entry["per_trace"])
    out = []
    for name, per_trace in pairs.items():
        measure = rate(name, per_trace, "", traces=len(per_trace))
        found = estimate(measure.statistic, weights.of(measure))
        counts = {"count": measure.count, "denominator": measure.denominator}
        out.append({"name": name, **dataclasses.asdict(found), **counts})
    return out


def evaluate(runs: Sequence[Run], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Everything that `report/metrics.json` holds.

    Args:
      runs: one run, or several to be pooled (see `pooling.pool`, which adds the interval over seeds).
      resamples: bootstrap resamples.
      seed: of the bootstrap alone.

    Returns:
      `rows` (each with name, value, low, high, count, denominator, paper, definition), `groups` (heading ->
      row names), `claims`, `ablation`, `curves`. Undefined figures are None; JSON has no NaN.
    """
    walks = walks_of(runs)
    weights = Weights.draw(walks, resamples, seed)
    rows, groups = rows_of(walks, runs, weights)
    by_name: Mapping[str, Mapping[str, Any]] = {row["name"]: row for row in rows}
    return {
        "rows": rows,
        "groups": groups,
        "claims": claims.check(by_name),
        "ablation": ablation_of(runs, weights),
        "curves": curves.curves_of(walks, runs, weights.problems),
        "problems": len(walks),
        "runs": len(runs),
    }
