"""Where rollouts are spent: a search says the same as rolling out everywhere, in fewer of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pytest
from handmade import rollout, solution
from ml_collections import ConfigDict

from glore_jax.errors import InputError
from glore_jax.method import labels, refiners, verifying
from glore_jax.records import Rollout, Solution

STEPS = ["a: <<2+3=5>>5", "b: <<5*2=10>>10", "c: <<10-3=7>>7", "d: <<7+1=8>>8", "#### 8"]
CONTINUED, AFRESH = ["e: <<5+10+7+8=30>>30", "#### 30"], ["#### 30"]  # the second uses nothing of its prefix


def settings(**changes: object) -> ConfigDict:
    group = {"search": "all", "rollouts": 4, "boundary_rollouts": 0, "consistency": "each", "propagation": True}
    return ConfigDict(group | changes)


def trace(name: str, steps: int = len(STEPS)) -> Solution:
    return solution([*STEPS[: steps - 1], STEPS[-1]], right=False, name=name)


class Student:
    """Rollouts whose outcome hangs on trace, prefix and number alone, and how many were asked for."""

    def __init__(self, seed: int = 0, mended: float = 0.15):
        self.seed, self.mended, self.asked = seed, mended, 0

    def __call__(
        self, traces: Sequence[Solution], count: int, prefixes: Mapping[str, Sequence[int]], first: int = 0
    ) -> list[Rollout]:
        made = []
        for one in traces:
            for i in prefixes[one.id]:
                for k in range(first, first + count):
                    draw = random.Random(f"{self.seed}/{one.id}/{i}/{k}").random()
                    lines = CONTINUED if draw < self.mended else AFRESH
                    made.append(rollout(i, lines, draw < 2 * self.mended, k, one.id))
        self.asked += len(made)
        return made


def by_trace(rollouts: Sequence[Rollout]) -> dict[str, list[Rollout]]:
    found: dict[str, list[Rollout]] = defaultdict(list)
    for one in rollouts:
        found[one.trace_id].append(one)
    return found


@pytest.mark.parametrize("boundary", [0, 3])
@pytest.mark.parametrize("reading", ["each", "off"])
def test_a_search_finds_the_labels_and_pairs_of_all_rollouts(reading: str, boundary: int):
    traces = [trace(f"p/{n}", 2 + n % 4) for n in range(2000)]
    everyone, searcher, told = Student(), Student(), []
    group = {"consistency": reading, "boundary_rollouts": boundary}
    whole = verifying.collect(everyone, traces, settings(**group), told.append)
    assert told == []
    found = verifying.collect(searcher, traces, settings(search="backward", **group), told.append)
    made = [labels.make(traces, by_trace(rows), reading, True) for rows in (whole, found)]
    assert made[0] == made[1]
    pairs = [
        refiners.local_pairs(traces, mine, by_trace(rows), [], 4)
        for mine, rows in zip(made, (whole, found), strict=True)
    ]
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) > 1000
    assert set(found) <= set(whole)
    assert everyone.asked - searcher.asked == sum(told) > 0


def test_a_search_by_hand():
    """P_4 and P_3 fail; P_2 is mended, so P_1 is not asked."""
    one, told = trace("p/0"), []

    def roll(
        traces: Sequence[Solution], count: int, prefixes: Mapping[str, Sequence[int]], first: int = 0
    ) -> list[Rollout]:
        assert (traces, count, first) == ([one], 2, 0)
        (i,) = prefixes["p/0"]
        return [rollout(i, CONTINUED, i == 2 and k == 1, k) for k in range(count)]

    found = verifying.collect(roll, [one], settings(search="backward", rollouts=2), told.append)
    assert [(r.prefix, r.sample) for r in found] == [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]
    assert told == [0, 0, 2]


def test_the_boundary_is_the_first_negative_prefix_that_has_had_no_more():
    outcomes: dict[str, dict[int, tuple[bool, ...]]] = {
        "open": {1: (True, False), 2: (False, False), 3: (False, False)},
        "more": {1: (True, False), 2: (False,) * 4, 3: (False, False)},  # had its more rollouts
        "hopeful": {1: (False, False), 2: (False, False, True), 3: (False, False)},  # moved on
        "mended": {1: (False, False), 2: (False, False), 3: (False, True)},  # only P_L is negative
    }
    rollouts = {
        name: [rollout(i, AFRESH, right, k, name) for i, rights in found.items() for k, right in enumerate(rights)]
        for name, found in outcomes.items()
    }
    group = settings(rollouts=2, consistency="off")
    found = verifying.first_negatives([trace(name, 4) for name in outcomes], rollouts, group)
    assert found == {"open": [2], "hopeful": [3]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": "forward"}, r"labels\.search='forward': expected one of all, backward"),
        ({"search": "backward", "propagation": False}, r"set labels\.propagation=True"),
    ],
)
def test_a_search_that_cannot_tell_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        verifying.check(settings(**changes))
