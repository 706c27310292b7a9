"""How many prefixes that can be mended no rollout mends: by hand, and against prefixes whose chance is known."""

from __future__ import annotations

import handmade
import numpy as np
import pytest

from glore_jax.method import label_noise


def test_counts_by_hand():
    """P_1 has a right rollout that uses its 5, P_2 one that starts afresh, P_3 none."""
    trace = handmade.solution(["a: <<2+3=5>>5", "b: <<5*2=10>>10", "c: <<1+1=2>>2", "#### 2"], False)
    used, afresh = ["d: <<5*2=10>>10", "#### 10"], ["e: <<3+4=7>>7", "#### 7"]
    found = [
        handmade.rollout(1, used, True, 0, trace.id),
        handmade.rollout(1, used, False, 1, trace.id),
        handmade.rollout(2, afresh, True, 0, trace.id),
        handmade.rollout(2, afresh, False, 1, trace.id),
        handmade.rollout(3, afresh, False, 0, trace.id),
        handmade.rollout(3, afresh, False, 1, trace.id),
        handmade.rollout(3, used, True, 2, trace.id),  # beyond the first two, at the boundary: not counted
    ]
    made = label_noise.of([trace], {trace.id: found}, "each", 2)
    assert (made["prefixes"], made["counts"], made["missed"]) == (3, [2, 1, 0], 0.0)
    free = label_noise.of([trace], {trace.id: found}, "off", 2)
    assert (free["counts"], free["missed"], free["share"]) == ([1, 2, 0], 0.5, 0.5)


def test_nothing_is_missed_where_everything_is_mended():
    trace = handmade.solution(["#### 1", "#### 1"], False)
    found = [handmade.rollout(1, ["#### 1"], True, k, trace.id) for k in (0, 1)]
    assert label_noise.of([trace], {trace.id: found}, "off", 2)["share"] is None
    assert label_noise.of([trace], {}, "off", 2)["prefixes"] == 0


@pytest.mark.parametrize(("a", "b"), [(0.5, 2.0), (1.0, 3.0), (2.0, 8.0)])
def test_the_estimate_is_a_lower_bound_and_a_near_one(a: float, b: float):
    """40 % of prefixes are hopeless; of the others the chances are known, and so is what 8 rollouts miss."""
    draw = np.random.default_rng(0)
    chance = draw.beta(a, b, 20_000) * (draw.random(20_000) > 0.4)
    mended = draw.binomial(8, chance)
    missed = int(((mended == 0) & (chance > 0)).sum())
    estimate = label_noise.missed(int((mended == 1).sum()), int((mended == 2).sum()), 8)
    assert 0.3 * missed < estimate < 1.05 * missed
