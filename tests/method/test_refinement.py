"""Where a draft is said to be wrong, and thresholds chosen on dev."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.method import refinement
from glore_jax.records import Candidate, Case, Problem, Solution


def candidate(
    right: bool, values: Sequence[float], first_false: int | None = None, orm: Sequence[float] | None = None
) -> Candidate:
    """A solution of as many steps as it has values."""
    steps = len(values)
    written = Solution("s", "p", (0,) * steps, tuple(range(1, steps + 1)), "\n".join("s" * steps), right)
    return Candidate(written, first_false, {"orm": tuple(values if orm is None else orm), "sorm": tuple(values)})


@pytest.mark.parametrize(
    ("values", "threshold", "at"),
    [
        ((0.9, 0.4, 0.2), 0.5, 1),
        ((0.9, 0.6, 0.7), 0.5, 1),  # none below: the lowest
        ((0.6, 0.6), 0.5, 0),  # of equals the first
        ((0.5, 0.4), 0.5, 1),  # the threshold itself is not below it
        ((), 0.5, -1),  # a draft without steps has no place to start
    ],
)
def test_locate_by_hand(values: tuple[float, ...], threshold: float, at: int):
    assert refinement.locate(values, threshold) == at


UNIT = st.floats(0, 1)


@given(st.lists(UNIT, min_size=1), UNIT)
def test_locate_names_a_step(values: list[float], threshold: float):
    at = refinement.locate(values, threshold)
    assert all(value >= threshold for value in values[:at])
    assert values[at] < threshold or values[at] == min(values)


def test_balanced_accuracy_by_hand():
    values, truth = [0.9, 0.8, 0.3, 0.6, 0.1], [True, True, True, False, False]
    assert refinement.balanced_accuracy(values, truth, 0.5) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert refinement.balanced_accuracy(values, truth, 0.8) == pytest.approx((2 / 3 + 1) / 2)  # 0.8 passes at 0.8
    assert refinement.balanced_accuracy([0.9, 0.2], [True, True], 0.5) == 0.5
    assert refinement.balanced_accuracy([0.9, 0.2], [False, False], 0.1) == 0.0


@given(st.lists(st.tuples(UNIT, st.booleans()), min_size=1), UNIT)
def test_saying_the_same_of_everything_is_worth_one_half(rows: list[tuple[float, bool]], threshold: float):
    values, truth = zip(*rows, strict=True)
    score = refinement.balanced_accuracy(values, truth, threshold)
    assert 0 <= score <= 1
    if len(set(truth)) == 2:
        assert (
            refinement.balanced_accuracy(values, truth, -1.0) == refinement.balanced_accuracy(values, truth, 2.0) == 0.5
        )
        repeated = [*rows, *[row for row in rows if row[1]] * 3]
        assert refinement.balanced_accuracy(*zip(*repeated, strict=True), threshold) == pytest.approx(score)


def test_first_error_f1_by_hand():
    values = [(0.9, 0.2), (0.9, 0.8), (0.3, 0.1), (0.9, 0.9), (0.9, 0.4), (0.4, 0.9)]
    truth = [1, -1, 1, 0, -1, 0]
    # Wrong solutions: 2 of 4 located exactly; right ones: 1 of 2 said to be right.
    assert refinement.first_error_f1(values, truth, 0.5) == pytest.approx(1 / 2)
    # At 0.35 the last one is missed (1 of 4), and both right ones are said to be right.
    assert refinement.first_error_f1(values, truth, 0.35) == pytest.approx(2 * (1 / 4) * 1 / (1 / 4 + 1))
    assert refinement.first_error_f1(values[:2], truth[:2], 0.5) == 1.0
    assert refinement.first_error_f1([(0.9,), (0.9,)], [0, -1], 0.5) == 0.0  # never says wrong
    assert refinement.first_error_f1([(0.1,), (0.1,)], [0, -1], 0.5) == 0.0  # always says wrong
    assert refinement.first_error_f1([(0.9,)], [-1], 0.5) == 0.0  # undefined without both classes


def test_thresholds_with_an_oracle_separate_what_can_be_separated():
    drafts = [
        candidate(False, (0.8, 0.3, 0.3), first_false=1, orm=(0.9, 0.65, 0.65)),
        candidate(True, (0.9, 0.8), first_false=-1, orm=(0.9, 0.71)),
        candidate(False, (0.1,), first_false=0, orm=(0.2,)),
    ]
    chosen = refinement.value_thresholds(drafts, ("orm", "sorm"))
    assert set(chosen) == {"orm_step", "orm_f1", "sorm_step", "sorm_f1", "sorm_where"}
    # Everything over 0.3 and up to 0.8 is perfect: 0.32 to 0.80 in steps of 0.02, the middle of these 25 is 0.56.
    assert chosen["sorm_step"] == chosen["sorm_f1"] == chosen["sorm_where"] == pytest.approx(0.56)
    assert 0.65 < chosen["orm_f1"] <= 0.71
    assert refinement.first_error_f1([d.values["orm"] for d in drafts], [1, -1, 0], chosen["orm_f1"]) == 1.0


def test_the_first_false_step_itself_is_a_false_prefix():
    drafts = [candidate(False, (0.9, 0.4), first_false=1), candidate(True, (0.8,), first_false=-1)]
    assert 0.4 < refinement.value_thresholds(drafts, ("sorm",))["sorm_step"] <= 0.8


def test_thresholds_without_an_oracle_use_what_is_known_of_answers():
    drafts = [
        candidate(True, (0.9, 0.7)),
        candidate(False, (0.2, 0.95)),
        candidate(True, (0.65,)),
        candidate(False, ()),
    ]
    chosen = refinement.value_thresholds(drafts, ("orm", "sorm"))
    assert set(chosen) == {"orm_f1", "sorm_f1", "sorm_where"}
    assert 0.4 < chosen["sorm_where"] <= 0.65


def test_one_unknown_draft_means_that_there_is_no_oracle():
    drafts = [candidate(True, (0.9,), first_false=-1), candidate(False, (0.2,), first_false=None)]
    assert "sorm_step" not in refinement.value_thresholds(drafts, ("sorm",))


@given(st.lists(st.tuples(st.lists(UNIT, min_size=1, max_size=4), st.integers(-1, 3)), min_size=1, max_size=6))
def test_no_threshold_of_the_grid_is_better_than_the_chosen_one(rows: list[tuple[list[float], int]]):
    drafts = [candidate(e < 0, v, first_false=min(e, len(v) - 1)) for v, e in rows]
    chosen = refinement.value_thresholds(drafts, ("sorm",))
    values, errors = (
        [d.values["sorm"] for d in drafts],
        [-1 if d.first_false is None else d.first_false for d in drafts],
    )
    best = refinement.first_error_f1(values, errors, chosen["sorm_f1"])
    assert all(refinement.first_error_f1(values, errors, i / 50) <= best + 1e-9 for i in range(1, 50))


def case(draft: Candidate, globally: Candidate, locally: Candidate) -> Case:
    problem = Problem("p", "?", "1")
    return Case(problem, 0, draft, draft, (), {"global": globally, "local": locally})


def test_the_gate_refines_wrong_drafts_and_spares_right_ones():
    right, wrong = candidate(True, (0.8,)), candidate(False, (0.3,))
    mended, broken = candidate(True, (0.9,)), candidate(False, (0.1,))
    chosen = refinement.decision_thresholds([case(right, broken, broken), case(wrong, mended, mended)], "orm")
    assert 0.3 < chosen["gate"] <= 0.8
    assert chosen["gate"] == pytest.approx(0.56)  # the middle of what is equally good


def test_the_margin_grows_as_far_as_rewrites_are_overrated():
    # A right draft at 0.5 with a wrong rewrite at 0.6, a wrong one at 0.5 with a right rewrite at 0.7.
    overrated = case(candidate(True, (0.5,)), candidate(False, (0.6,)), candidate(False, (0.2,)))
    mending = case(candidate(False, (0.5,)), candidate(True, (0.7,)), candidate(False, (0.2,)))
    chosen = refinement.decision_thresholds([overrated, mending], "orm")
    assert 0.1 - 1e-9 <= chosen["rank_margin"] < 0.2
