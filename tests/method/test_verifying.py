"""Where rollouts are spent: a search says the same as rolling out everywhere, in fewer of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

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
    """Rollouts whose outcome hangs on trace, prefix and number alone; how many were asked for, and how many made.

    They are done in an order of their own, a few at a time.
    """

    def __init__(self, seed: int = 0, mended: float = 0.15):
        self.seed, self.mended, self.asked, self.made = seed, mended, 0, 0
        self.order, self.waiting = random.Random(seed), []

    def ask(self, trace: Solution, prefix: int, samples: Sequence[int], more: bool = False) -> None:
        self.waiting += [(trace, prefix, sample) for sample in samples]
        self.asked += len(samples)

    def give_up(self, trace: Solution, prefix: int, samples: Sequence[int]) -> None:
        self.waiting = [w for w in self.waiting if w[0] is not trace or w[1] != prefix or w[2] not in samples]

    def __iter__(self) -> Iterator[Rollout]:
        while self.waiting:
            at = self.order.randrange(min(len(self.waiting), 40))
            self.made += 1
            yield self.outcome(*self.waiting.pop(at))

    def outcome(self, trace: Solution, prefix: int, sample: int) -> Rollout:
        draw = random.Random(f"{self.seed}/{trace.id}/{prefix}/{sample}").random()
        lines = CONTINUED if draw < self.mended else AFRESH
        return rollout(prefix, lines, draw < 2 * self.mended, sample, trace.id)


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
    assert everyone.made - searcher.made == sum(told) > 0


@pytest.mark.parametrize("boundary", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_the_first_rollout_that_mends_a_prefix_is_enough_for_its_label(boundary: int):
    traces = [trace(f"p/{n}", 2 + n % 4) for n in range(2000)]
    whole, found = {}, {}
    for search, rows in (("backward", whole), ("first", found)):
        for seed in (0, 5):  # the order in which rollouts are done changes nothing
            rolling = Student()
            rolling.order, told = random.Random(seed), []
            made = verifying.collect(rolling, traces, settings(search=search, boundary_rollouts=boundary), told.append)
            assert rows.setdefault("rollouts", made) == made
            rows[seed] = rolling.made
    mine, yours = (labels.make(traces, by_trace(rows["rollouts"]), "each", True) for rows in (whole, found))
    assert mine == yours
    assert set(found["rollouts"]) < set(whole["rollouts"])
    assert found[0] < 0.95 * whole[0]
    last: dict[tuple[str, int], int] = {}
    for one in found["rollouts"]:
        if one.sample < 4 and one.right and one.steps == CONTINUED:
            assert (one.trace_id, one.prefix) not in last  # nothing was kept beyond it
            last[one.trace_id, one.prefix] = one.sample


def test_a_search_by_hand():
    """P_4 and P_3 fail; P_2 is mended, so P_1 is not asked."""
    one, told = trace("p/0"), []

    class Mended(Student):
        def outcome(self, trace: Solution, prefix: int, sample: int) -> Rollout:
            return rollout(prefix, CONTINUED, prefix == 2 and sample == 1, sample)

    found = verifying.collect(Mended(), [one], settings(search="backward", rollouts=2), told.append)
    assert [(r.prefix, r.sample) for r in found] == [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]
    assert told == [2]


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
    group = settings(rollouts=2, consistency="off", boundary_rollouts=2)
    found = {name: verifying.wanted(trace(name, 4), rollouts[name], group) for name in outcomes}
    assert found == {"open": {2: range(2, 4)}, "more": {}, "hopeful": {3: range(2, 4)}, "mended": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": "forward"}, r"labels\.search='forward': expected one of all, backward, first"),
        ({"search": "backward", "propagation": False}, r"set labels\.propagation=True"),
        ({"rollouts": 0}, r"labels\.rollouts=0: expected 1 or more"),
        ({"rollouts": -1, "search": "backward"}, r"labels\.rollouts=-1: expected 1 or more"),
        ({"boundary_rollouts": -3}, r"labels\.boundary_rollouts=-3: expected 0 or more"),
    ],
)
def test_a_search_that_cannot_tell_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        verifying.check(settings(**changes))
