"""Estimates with 95 % intervals: a bootstrap over problems, in matrix form.

A problem is the unit of chance: its draft, samples and steps are drawn together, so a resample draws whole
problems. A resample is a row of weights w (how often each problem was drawn), and a *statistic* is a
function of such rows. Almost all metrics are a formula of sums over problems, so 1,000 resamples are one
matrix product `weights_RxN @ sums_NxK`; the AUROC has its own weighted count of pairs. All metrics share one
weight matrix, which makes every difference of two of them a paired one.

Shapes: R resamples, N problems (or other units), K sums, M scored items.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 50  # resamples at a time where items outnumber problems: bounds the memory

Statistic = Callable[[np.ndarray], np.ndarray]
"""weights [R, N] -> values [R]; NaN where a resample leaves the statistic undefined."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; None where it is undefined (nothing to divide by)."""

    value: float | None
    low: float | None
    high: float | None


def resample_weights(groups: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draws groups with replacement; says how often each unit is in each resample.

    Args:
      groups: for each unit, what it belongs to; units of one group are drawn together (the same question
        answered by several runs is one group, so pooling seeds does not pretend to more questions).

    Returns:
      weights [resamples, units], float64.

    >>> resample_weights(["a", "b", "b"], resamples=2, seed=1)
    array([[1., 1., 1.],
           [2., 0., 0.]])
    """
    place: dict[Hashable, int] = {}
    index = np.array([place.setdefault(group, len(place)) for group in groups], dtype=int)
    if not place:
        return np.zeros((resamples, 0))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(place), np.full(len(place), 1 / len(place)), size=resamples)
    return drawn[:, index].astype(float)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is zero."""
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)


def ratio(sums: np.ndarray) -> np.ndarray:
    """[..., (numerator, denominator)] -> rate."""
    return divide(sums[..., 0], sums[..., 1])


def balanced(sums: np.ndarray) -> np.ndarray:
    """[..., (hits, count of class one, hits, count of class two)] -> mean of the two accuracies."""
    return (ratio(sums[..., :2]) + ratio(sums[..., 2:])) / 2


def harmonic(sums: np.ndarray) -> np.ndarray:
    """[..., (hits, count, hits, count)] -> harmonic mean of the two accuracies, 0 where both are 0."""
    first, second = ratio(sums[..., :2]), ratio(sums[..., 2:])
    total = first + second
    return np.where(total == 0, 0.0, divide(2 * first * second, total))


def ordered(true: Sequence[float], false: Sequence[float]) -> tuple[float, float]:
    """Pairs of a true and a false item in which the true one scores higher (ties half), and all pairs.

    >>> ordered([0.9, 0.5], [0.5, 0.1])
    (3.5, 4.0)
    """
    gap = np.subtract.outer(np.asarray(true, float), np.asarray(false, float))
    return float((gap > 0).sum() + (gap == 0).sum() / 2), float(gap.size)


@dataclasses.dataclass(frozen=True)
class Sums:
    """A formula of sums over problems.

    Attributes:
      sums: [N, K], what each problem adds.
      formula: [..., K] -> [...].
    """

    sums: np.ndarray
    formula: Callable[[np.ndarray], np.ndarray] = ratio

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return self.formula(weights @ self.sums)


@dataclasses.dataclass(frozen=True)
class Auroc:
    """Chance that a true item scores above a false one; ties count one half.

    Attributes:
      scores, truth: of each item, [M].
      owner: the problem each item belongs to, [M].
      stratum: pairs are formed within a stratum only, [M] (a run: scores of two models are not compared).
    """

    scores: np.ndarray
    truth: np.ndarray
    owner: np.ndarray
    stratum: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        wins, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for stratum in np.unique(self.stratum):
            inside = self.stratum == stratum
            more = _pairs(self.scores[inside], self.truth[inside], self.owner[inside], weights)
            wins, pairs = wins + more[0], pairs + more[1]
        return divide(wins, pairs)


def _pairs(
    scores: np.ndarray, truth: np.ndarray, owner: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted (true item above false item) wins and number of such pairs, each [R]."""
    order = np.argsort(scores, kind="stable")
    scores, truth, owner = scores[order], truth[order].astype(float), owner[order]
    starts = np.flatnonzero(np.r_[True, np.diff(scores) != 0])  # items of one score stand together
    wins, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for first in range(0, len(weights), _CHUNK):
        rows = slice(first, first + _CHUNK)
        weights_CxM = weights[rows][:, owner]
        true_CxU = np.add.reduceat(weights_CxM * truth, starts, axis=1)
        false_CxU = np.add.reduceat(weights_CxM * (1 - truth), starts, axis=1)
        below_CxU = np.cumsum(false_CxU, axis=1) - false_CxU
        wins[rows] = (true_CxU * (below_CxU + false_CxU / 2)).sum(axis=1)
        pairs[rows] = true_CxU.sum(axis=1) * false_CxU.sum(axis=1)
    return wins, pairs


def point(statistic: Statistic, units: int) -> float:
    """The statistic of the units as they are, each counted once; NaN where undefined."""
    return float(statistic(np.ones((1, units)))[0])


def interval(value: float, resampled: np.ndarray) -> Estimate:
    """A value with the percentile interval of its resamples; undefined resamples are left out."""
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(defined):
        return Estimate(None, None, None)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


def estimate(statistic: Statistic, weights: np.ndarray) -> Estimate:
    """Value and interval of one statistic under one weight matrix."""
    return interval(point(statistic, weights.shape[1]), statistic(weights))
