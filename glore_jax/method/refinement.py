"""The whole system at inference (paper section 3.4): draft, locate, rewrite twice, choose; and its thresholds.

WHERE: the SORM's first step under a threshold. HOW: a global and a local rewrite, greedy. WHEN and
which: the ORM keeps the best of {draft, global, local}.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glore_jax.decisions import best_threshold, first_below, gated, system
from glore_jax.records import Candidate, Case


def locate(values: Sequence[float], threshold: float) -> int:
    """The step that the local refiner is told to rewrite from.

    The first step under the threshold; where none is, the step of the lowest value, so that a draft
    that is to be refined regardless has a place to start. -1 for a draft without steps.
    """
    found = first_below(values, threshold)
    return found if found >= 0 else min(range(len(values)), key=values.__getitem__, default=-1)


def balanced_accuracy(values: Sequence[float], truth: Sequence[bool], threshold: float) -> float:
    """Mean of the accuracies on true and on false instances; the one class's where the other is empty."""
    said = np.asarray(values) >= threshold
    right = np.asarray(truth, bool)
    parts = [float(np.mean(said[right == side] == side)) for side in (True, False) if np.any(right == side)]
    return sum(parts) / len(parts)


def first_error_f1(values: Sequence[Sequence[float]], truth: Sequence[int], threshold: float) -> float:
    """ProcessBench's F1: harmonic mean of exact-index accuracy on wrong and -1 accuracy on right solutions."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for step_values, error in zip(values, truth, strict=True):
        hits[error >= 0].append(first_below(step_values, threshold) == error)
    if not hits[True] or not hits[False]:
        return 0.0
    a, b = (sum(h) / len(h) for h in hits.values())
    return 2 * a * b / (a + b) if a + b else 0.0


def value_thresholds(drafts: Sequence[Candidate], models: Sequence[str]) -> dict[str, float]:
    """Dev-tuned thresholds of each value model on drafts.

    With an oracle: `<model>_step` (balanced step accuracy) and `<model>_f1` (first-error F1), and
    `sorm_where` from the latter. Without one, WHERE is tuned on what is known, right drafts have no
    error and wrong ones do: the balanced accuracy of "some step is under the threshold".
    """
    out: dict[str, float] = {}
    with_steps = [d for d in drafts if d.solution.num_steps]
    known = all(d.first_false is not None for d in with_steps)
    for model in models:
        values = [d.values[model] for d in with_steps]
        if known:
            errors = [-1 if d.first_false is None else d.first_false for d in with_steps]
            flat = [v for row in values for v in row]
            truth = [e < 0 or i < e for row, e in zip(values, errors, strict=True) for i in range(len(row))]
            out[f"{model}_step"] = best_threshold(lambda t, f=flat, y=truth: balanced_accuracy(f, y, t))
            out[f"{model}_f1"] = best_threshold(lambda t, v=values, e=errors: first_error_f1(v, e, t))
        else:
            lowest, right = [min(row) for row in values], [d.solution.right for d in with_steps]
            out[f"{model}_f1"] = best_threshold(lambda t, v=lowest, y=right: balanced_accuracy(v, y, t))
    out["sorm_where"] = out["sorm_f1"]
    return out


def decision_thresholds(cases: Sequence[Case], ranker: str) -> dict[str, float]:
    """Dev-tuned WHEN: `gate` (a draft is rewritten if its ORM value is lower) and `rank_margin` (of the ranker)."""

    def gated_accuracy(threshold: float) -> float:
        return float(np.mean([gated(c, name, threshold).solution.right for c in cases for name in ("global", "local")]))

    def system_accuracy(margin: float) -> float:
        return float(np.mean([system(c, margin, ranker).solution.right for c in cases]))

    margins = tuple(round(0.02 * i, 2) for i in range(0, 21))
    return {"gate": best_threshold(gated_accuracy), "rank_margin": best_threshold(system_accuracy, margins)}
