"""Labels from a tree of verifying traces, each step of the post-processing worked by hand."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
from handmade import EVEN_WEIGHTS, rollout, solution
from hypothesis import given, settings
from hypothesis import strategies as st

from glore_jax.method import labels
from glore_jax.records import Rollout, StepLabels
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.tasks.arithmetic.quantities import World
from glore_jax.tasks.arithmetic.slips import slip_lines

# The right way: a = 2 + 3 = 5, b = 5 * 2 = 10, c = 10 - 4 = 6. The draft slips at its third step.
A, B, C = "a: <<2+3=5>>5", "b: <<5*2=10>>10", "c: <<10-4=6>>6"
DRAFT = solution([A, B, "c: <<10-3=7>>7", "#### 7"])
GOLD = solution([A, B, C, "#### 6"], right=True, name="p/1")
# From P_1: one goes on rightly, one does not.
FROM_1 = [rollout(1, [B, C, "#### 6"], True, 0), rollout(1, [B, "c: <<10-5=5>>5", "#### 5"], False, 1)]
# From P_2: one is right but starts afresh and never uses b's 10; one goes on rightly; one is wrong.
AFRESH_2 = rollout(2, ["c: <<9-3=6>>6", "#### 6"], True, 0)
RIGHT_2 = rollout(2, [C, "#### 6"], True, 1)
WRONG_2 = rollout(2, ["c: <<10-2=8>>8", "#### 8"], False, 2)
# From P_3: right in spite of the 7, which it ignores.
AFRESH_3 = rollout(3, ["#### 6"], True, 0)
WRONG_3 = rollout(3, ["#### 7"], False, 1)
TREE = [*FROM_1, AFRESH_2, RIGHT_2, WRONG_2, AFRESH_3, WRONG_3]


@pytest.mark.parametrize(
    ("step", "result"),
    [
        (A, "5"),
        ("Ben = Ann + 3: <<7+3=10>> Ben 10", "10"),
        ("Total = Ann + Ben: <<7+10=17>> Total 17", "17"),
        ("Ann 7", "7"),  # a given's line
        ("Eva = Sam - 3: <<34-3=31>> Eva 30", "31"),  # of the equation, where the repeated one differs
        ("so b: 5*2 = <<5*2=10>>10 dollars, not 12", "10"),
        ("<<1+1=2>>2 and <<2*2=4>>4", "4"),
        ("<<7/2=3.5>>3.5", "3.5"),
        ("<<3-5=-2>>-2", "-2"),
        ("that leaves 4 of 12", "12"),
        ("10-4", "4"),
        ("<<1000+210=1210>>1,210", "1210"),
        ("they pay $1,210.50 in all", "1210.50"),
        ("11,234,567 people", "11234567"),
        ("of 1,5 and 12,34 no thousands", "34"),
        ("-1,210", "-1210"),
        ("#### 6", "6"),
        ("nothing to see", None),
        ("<<a=b>> 3", None),  # an annotation without a number
    ],
)
def test_the_intermediate_result_of_a_step(step: str, result: str | None):
    assert labels.intermediate_result(step) == result


@pytest.mark.parametrize(
    ("prefix", "continuation", "each", "strict"),
    [
        ([], ["#### 6"], True, True),
        ([A], [B, C, "#### 6"], True, True),
        ([A, B], [C, "#### 6"], True, False),  # 5 was used up within the prefix
        ([A, B], [C, "d: <<5+6=11>>11"], True, True),
        ([A, B], ["c: <<9-3=6>>6", "#### 6"], False, False),
        ([B, A], [C, "#### 6"], False, False),  # 5 is nowhere after the step that computed it
        ([A], ["b: <<15*2=30>>30"], False, False),  # a 5 is not found in 15,
        ([A], ["b: <<1.5*2=3>>3"], False, False),  # nor in 1.5,
        ([A], ["b: <<50/2=25>>25"], False, False),  # nor in 50 or 25
        ([A], ["b: <<9-5=4>>4"], True, True),  # it is found where it is subtracted
        ([A], ["b: 9-5 = 4"], True, True),
        ([A], ["b = a - 3: <<5-3=2>>2"], True, True),  # a relation in names adds nothing to its equation
        ([A], ["b = d - 3: <<9-3=6>>6"], False, False),
        ([A], ["b = d - 5: <<9-5=4>>4"], True, True),  # another's constant 5 counts, as in the equation alone
        (["d = 5"], [A, "e: <<5*3=15>>15"], True, True),  # a stated given is to be used like a result
        (["d = 7"], [A, B, "#### 10"], False, False),
        (["no number"], ["#### 6"], True, True),
        (["a: 1,000+210 = <<1000+210=1210>>1,210"], ["b: 1,210/10 = <<1210/10=121>>121"], True, True),
        (["a: 1,000+210 = 1,210"], ["b: <<1210/10=121>>121"], True, True),  # said without the separator
        (["a: <<200+10=210>>210"], ["b: 1,210-10 = 1,200"], False, False),  # a 210 is not found in 1,210
        ([A], [], False, False),
    ],
)
def test_consistency_by_hand(prefix: list[str], continuation: list[str], each: bool, strict: bool):
    assert labels.consistent(prefix, continuation) == each
    assert labels.consistent(prefix, continuation, "each") == each
    assert labels.consistent(prefix, continuation, "strict") == strict
    assert labels.consistent(prefix, continuation, "off")


@pytest.mark.parametrize(
    ("reading", "raw", "propagated"),
    [
        ("off", [1, 1, 1, 0], [1, 1, 1, 0]),  # any of K right
        ("each", [1, 1, 0, 0], [1, 1, 0, 0]),  # P_3's right trace ignores the 7
        ("strict", [1, 0, 0, 0], [1, 0, 0, 0]),  # P_2's right trace does not say 5 again
    ],
)
def test_labels_of_a_tree_by_hand(reading: str, raw: list[int], propagated: list[int]):
    assert labels.raw_labels(DRAFT, TREE, reading) == raw
    made = labels.make([DRAFT], {DRAFT.id: TREE}, reading, propagation=True)
    assert made == [StepLabels(DRAFT.id, tuple(propagated))]


def test_propagation_mends_what_luck_missed():
    unlucky = [FROM_1[1], *TREE[2:]]  # no right trace from P_1 was drawn, one from P_2 was
    assert labels.raw_labels(DRAFT, unlucky, "each") == [0, 1, 0, 0]
    assert labels.make([DRAFT], {DRAFT.id: unlucky}, "each", False)[0].labels == (0, 1, 0, 0)
    assert labels.make([DRAFT], {DRAFT.id: unlucky}, "each", True)[0].labels == (1, 1, 0, 0)


def test_consistency_comes_before_propagation():
    only_afresh = [AFRESH_2, AFRESH_3]
    assert labels.make([DRAFT], {DRAFT.id: only_afresh}, "off", True)[0].labels == (1, 1, 1, 0)
    assert labels.make([DRAFT], {DRAFT.id: only_afresh}, "each", True)[0].labels == (0, 0, 0, 0)


def test_a_right_trace_needs_no_rollouts():
    assert labels.make([GOLD], {}, "each", True)[0].labels == (1, 1, 1, 1)
    assert labels.raw_labels(GOLD, [], "each") == [1, 1, 1, 1]


def test_a_right_trace_with_an_unused_step_is_positive_by_propagation_alone():
    idle = solution([A, "x: <<30+1=31>>31", B, C, "#### 6"], right=True)
    assert labels.raw_labels(idle, [], "off") == [1, 1, 1, 1, 1]
    assert labels.raw_labels(idle, [], "each") == [1, 0, 0, 0, 1]
    assert labels.make([idle], {}, "each", True)[0].labels == (1, 1, 1, 1, 1)


def test_a_difference_uses_both_of_its_numbers():
    """Two chains that meet in a difference: the subtracted result counts as used."""
    a, b, c = "a: <<9+9=18>>18", "b: <<3+4=7>>7", "c: <<18-7=11>>11"
    right = solution([a, b, c, "#### 11"], right=True)
    assert labels.raw_labels(right, [], "each") == [1, 1, 1, 1]
    wrong = solution([a, b, "c: <<18+7=25>>25", "#### 25"])
    assert labels.raw_labels(wrong, [rollout(2, [c, "#### 11"], True)], "each") == [0, 1, 0, 0]


def test_rollouts_of_other_traces_do_not_count():
    other = solution([A, B, "c: <<10-3=7>>7", "#### 7"], name="p/9")
    made = labels.make([DRAFT, other], {DRAFT.id: TREE}, "each", True)
    assert [m.labels for m in made] == [(1, 1, 0, 0), (0, 0, 0, 0)]


LABELS = st.lists(st.sampled_from([0, 1]), max_size=8)


@given(LABELS)
def test_propagation_gives_positives_then_negatives(given_labels: list[int]):
    out = labels.propagate(given_labels)
    assert out == sorted(out, reverse=True)
    assert all(after >= before for before, after in zip(given_labels, out, strict=True))
    assert sum(out) == max((i for i, x in enumerate(given_labels, 1) if x), default=0)
    assert labels.propagate(out) == out


POOL = [*TREE, rollout(1, ["b: <<5+6=11>>11", "#### 6"], True, 7), rollout(3, ["d: <<7-1=6>>6", "#### 6"], True, 7)]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(POOL), max_size=8), st.randoms(use_true_random=False))
def test_readings_are_ordered_and_rollouts_are_not(rollouts: list[Rollout], rng: random.Random):
    shuffled = rng.sample(rollouts, len(rollouts))
    for propagation in (False, True):
        off, each, strict = (
            labels.make([DRAFT], {DRAFT.id: rollouts}, reading, propagation)[0].labels
            for reading in ("off", "each", "strict")
        )
        assert all(a >= b >= c for a, b, c in zip(off, each, strict, strict=True))
        assert labels.make([DRAFT], {DRAFT.id: shuffled}, "each", propagation)[0].labels == each


def test_balance_by_hand():
    made = [StepLabels("a", (1, 1, 0)), StepLabels("b", (1, 0)), StepLabels("c", (0, 0)), StepLabels("d", (1,))]
    out = labels.balance(made, seed=0)
    # Length 1: three positive, one negative; length 2: one positive, two negative; length 3: one class alone.
    assert labels.rates(out) == [
        {"prefix": 1, "positive": 1, "count": 2},
        {"prefix": 2, "positive": 1, "count": 2},
    ]
    assert [e.trace_id for e in out] == ["a", "b", "c", "d"]
    assert [len(e.labels) for e in out] == [3, 2, 2, 1]
    assert out[0].labels[1:] == (1, -1)  # the one positive of length 2 stays, the one of length 3 goes
    assert out[2].labels[0] == 0  # the one negative of length 1 stays
    assert sum(e.labels[0] == 1 for e in out) == 1


TABLES = st.lists(LABELS.map(tuple), max_size=12).map(
    lambda rows: [StepLabels(f"trace-{n}", row) for n, row in enumerate(rows)]
)


@given(TABLES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_balance_leaves_equal_numbers_and_no_more_is_dropped_than_must_be(
    table: list[StepLabels], seed: int, rng: random.Random
):
    out = labels.balance(table, seed)
    for before, after in zip(table, out, strict=True):
        assert before.trace_id == after.trace_id
        assert all(y in (x, -1) for x, y in zip(before.labels, after.labels, strict=True))
    full = {r["prefix"]: r for r in labels.rates(table)}
    left = {r["prefix"]: r for r in labels.rates(out)}
    for prefix, r in full.items():
        size = min(r["positive"], r["count"] - r["positive"])
        assert left.get(prefix, {"positive": 0, "count": 0}) | {"prefix": 0} == {
            "prefix": 0, "positive": size, "count": 2 * size,
        }  # fmt: skip
    shuffled = rng.sample(table, len(table))
    assert {e.trace_id: e for e in labels.balance(shuffled, seed)} == {e.trace_id: e for e in out}
    assert labels.balance(out, seed) == out


def test_which_labels_stay_is_drawn_by_the_seed():
    table = [StepLabels(f"trace-{n}", (1,)) for n in range(40)] + [StepLabels("wrong", (0,))]
    kept = {
        next(e.trace_id for e in labels.balance(table, seed) if e.labels == (1,)) for seed in range(20)
    }  # of forty, one
    assert len(kept) > 5


def test_rates_count_labels_by_prefix_length_without_the_dropped():
    table = [StepLabels("a", (1, 1, -1)), StepLabels("b", (1, 0)), StepLabels("c", (-1, 0, 0, -1))]
    assert labels.rates(table) == [
        {"prefix": 1, "positive": 2, "count": 2},
        {"prefix": 2, "positive": 1, "count": 3},
        {"prefix": 3, "positive": 0, "count": 1},
    ]
    assert labels.rates([]) == []


def test_agreement_with_the_oracle_by_hand():
    table = [
        StepLabels("first-false-2", (1, 1, 0, 0)),  # all agree
        StepLabels("never-false", (1, 0, -1)),  # the second should be 1
        StepLabels("false-at-once", (1, 1, -1, 0)),  # two too hopeful
        StepLabels("nothing-kept", (-1, -1)),
    ]
    first_false = {"first-false-2": 2, "never-false": -1, "false-at-once": 0, "nothing-kept": 1}
    assert labels.agreement(table, first_false) == [(4, 4), (1, 2), (1, 3), (0, 0)]


def test_the_paper_order_by_hand():
    """Raw, consistency, propagation, balance, one after the other on two traces."""
    unlucky = [dataclasses.replace(r, trace_id="p/2") for r in [FROM_1[1], *TREE[2:]]]
    second = dataclasses.replace(DRAFT, id="p/2")
    trees = {DRAFT.id: TREE, "p/2": unlucky}

    def of(reading: str, propagation: bool) -> list[tuple[int, ...]]:
        return [e.labels for e in labels.make([DRAFT, second, GOLD], trees, reading, propagation)]

    assert of("off", False) == [(1, 1, 1, 0), (0, 1, 1, 0), (1, 1, 1, 1)]
    assert of("each", False) == [(1, 1, 0, 0), (0, 1, 0, 0), (1, 1, 1, 1)]
    assert of("each", True) == [(1, 1, 0, 0), (1, 1, 0, 0), (1, 1, 1, 1)]
    balanced = labels.balance(labels.make([DRAFT, second, GOLD], trees, "each", True), seed=0)
    by_length = list(itertools.zip_longest(*(e.labels for e in balanced)))
    assert by_length[:2] == [(-1, -1, -1), (-1, -1, -1)]  # positive in all three: nothing to learn at lengths 1 and 2
    assert [sorted(column) for column in by_length[2:]] == [[-1, 0, 1], [-1, 0, 1]]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000))
def test_worked_solutions_are_consistent_at_every_prefix(index: int):
    lines = make_problem(0, "train", index, EVEN_WEIGHTS).solution.split("\n")
    assert all(labels.consistent(lines[:i], lines[i:]) for i in range(len(lines)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_a_relation_in_names_uses_no_number_that_its_equation_does_not(index: int, rng: random.Random):
    made = make_problem(0, "corpus", index, EVEN_WEIGHTS)
    gold = made.solution.split("\n")
    for line in (*gold[:-1], *(slip_lines(World.from_json(made.facts), gold, rng) or ())[:-1]):
        if "<<" not in line or not line[-1].isdigit() or (line.count("*") == 1 and "+" in line):
            continue  # a given's line has no equation; a product by parts names the whole, or its numbers of before
        equation = line[line.index("<<") :]
        assert labels.intermediate_result(line) == labels.intermediate_result(equation)
        for result in range(1, 100):
            prefix = [f"x: <<{result}+0={result}>>{result}"]
            assert labels.consistent(prefix, [line]) == labels.consistent(prefix, [equation])
