"""Several seeds of one recipe, pooled: figures over all their problems, and an interval over seeds.

Two kinds of chance are kept apart. `low`/`high` is the bootstrap over problems of the pooled figure (a question
that several runs answered is drawn with all its answers). `seed_low`/`seed_high` is a Student t interval for the
mean of the seeds' own figures: with three seeds it is wide, and honestly so.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from glore_jax.errors import InputError
from glore_jax.evaluation.metrics import evaluate, points
from glore_jax.evaluation.runs import Run, walks_of
from glore_jax.evaluation.statistics import LEVEL, RESAMPLES


def seed_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """95 % t interval of the mean of the seeds' values; (None, None) for fewer than two.

    >>> [round(x, 3) for x in seed_interval([0.5, 0.6, 0.7])]  # 0.6 ± 4.303 * 0.1 / sqrt(3)
    [0.352, 0.848]
    """
    from scipy.special import stdtrit  # imported on use: nothing is loaded at import

    if len(values) < 2:
        return None, None
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    return mean - half, mean + half


def pool(runs: Sequence[Run], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """What `evaluate` gives, over all runs' problems, each run under its own thresholds.

    Every row also has `seeds` (each run's own value, None where it has none), `seed_mean`, `seed_min`,
    `seed_max` and `seed_low`, `seed_high` (t interval of the mean).
    """
    if not runs:
        raise InputError("no runs to pool; give at least one finished work folder")
    pooled = evaluate(runs, resamples, seed)
    each = [points(walks_of([run]), [run]) for run in runs]
    for row in pooled["rows"]:
        values = [values.get(row["name"]) for values in each]
        found = [value for value in values if value is not None]
        low, high = seed_interval(found)
        row["seeds"] = values
        row["seed_mean"] = statistics.fmean(found) if found else None
        row["seed_min"], row["seed_max"] = (min(found), max(found)) if found else (None, None)
        row["seed_low"], row["seed_high"] = low, high
    return pooled
