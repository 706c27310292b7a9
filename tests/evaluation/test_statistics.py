"""Bootstrap, formulas of sums, and the AUROC against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.evaluation import statistics
from glore_jax.evaluation.statistics import Auroc, Sums


def test_weights_are_deterministic_and_keep_groups_together():
    groups = ["a", "b", "a", "c"]
    weights = statistics.resample_weights(groups, resamples=200, seed=3)
    assert np.array_equal(weights, statistics.resample_weights(groups, resamples=200, seed=3))
    assert not np.array_equal(weights, statistics.resample_weights(groups, resamples=200, seed=4))
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.all(weights[:, [0, 1, 3]].sum(axis=1) == 3)


def test_weights_of_nothing_are_empty():
    assert statistics.resample_weights([], resamples=5).shape == (5, 0)


def test_formulas_by_hand():
    # 3 of 4 and 1 of 2: mean 0.625, harmonic mean 2 * 0.75 * 0.5 / 1.25 = 0.6
    sums = np.array([3.0, 4.0, 1.0, 2.0])
    assert statistics.ratio(sums) == 0.75
    assert statistics.balanced(sums) == 0.625
    assert statistics.harmonic(sums) == pytest.approx(0.6)
    assert statistics.harmonic(np.array([0.0, 4.0, 0.0, 2.0])) == 0.0
    assert np.isnan(statistics.harmonic(np.array([1.0, 1.0, 0.0, 0.0])))
    assert np.isnan(statistics.ratio(np.array([0.0, 0.0])))


def test_ratio_resamples_numerator_and_denominator_together():
    """A problem with many items weighs more: resampled (1/1, 0/9) is 1, 0.1 or 0."""
    statistic = Sums(np.array([[1.0, 1.0], [0.0, 9.0]]))
    drawn = statistic(statistics.resample_weights(["a", "b"], resamples=300))
    assert set(np.round(drawn, 6)) == {0.0, 0.1, 1.0}


def test_interval_matches_the_normal_approximation():
    hits = np.r_[np.ones(300), np.zeros(700)]
    found = statistics.estimate(
        Sums(np.stack([hits, np.ones(1000)], axis=1)), statistics.resample_weights(range(1000), 1000)
    )
    assert found.value == 0.3
    assert found.low == pytest.approx(0.3 - 1.96 * 0.01449, abs=0.004)
    assert found.high == pytest.approx(0.3 + 1.96 * 0.01449, abs=0.004)


def test_undefined_values_have_no_interval():
    found = statistics.estimate(Sums(np.zeros((3, 2))), statistics.resample_weights("abc", 10))
    assert found == statistics.Estimate(None, None, None)


def test_undefined_resamples_are_left_out():
    """Only one of two problems counts: resamples without it are undefined, the others all give 1."""
    found = statistics.estimate(Sums(np.array([[1.0, 1.0], [0.0, 0.0]])), statistics.resample_weights("ab", 100))
    assert found == statistics.Estimate(1.0, 1.0, 1.0)


def brute_force(items: list[tuple[int, int, float, bool]], weights: np.ndarray) -> float:
    wins = pairs = 0.0
    for owner_a, run_a, score_a, truth_a in items:
        for owner_b, run_b, score_b, truth_b in items:
            if run_a == run_b and truth_a and not truth_b:
                weight = weights[owner_a] * weights[owner_b]
                pairs += weight
                wins += weight * (1.0 if score_a > score_b else 0.5 if score_a == score_b else 0.0)
    return wins / pairs if pairs else float("nan")


ITEM = st.tuples(st.integers(0, 3), st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans())


@given(
    st.lists(ITEM, max_size=12), st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=3)
)
def test_auroc_equals_brute_force_under_any_weights(items, rows):
    columns = np.array(items, dtype=float).reshape(-1, 4).T
    statistic = Auroc(columns[2], columns[3].astype(bool), columns[0].astype(int), columns[1])
    weights = np.array(rows, dtype=float)
    expected = [brute_force(items, row) for row in weights]
    np.testing.assert_allclose(statistic(weights), expected, rtol=1e-12)


def test_auroc_of_many_resamples_is_the_same_in_chunks():
    rng = np.random.default_rng(0)
    statistic = Auroc(rng.random(30), rng.random(30) < 0.5, rng.integers(0, 10, 30), np.zeros(30))
    weights = statistics.resample_weights(range(10), resamples=statistics._CHUNK * 2 + 7)
    np.testing.assert_allclose(statistic(weights), [statistic(row[None])[0] for row in weights])
