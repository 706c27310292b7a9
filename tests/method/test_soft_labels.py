"""Soft labels on the tree of verifying traces of test_labels.py, counted by hand."""

from __future__ import annotations

import pytest
from handmade import rollout, solution
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.errors import InputError
from glore_jax.method import labels, soft_labels

A, B, C = "a: <<2+3=5>>5", "b: <<5*2=10>>10", "c: <<10-4=6>>6"
DRAFT = solution([A, B, "c: <<10-3=7>>7", "#### 7"])
GOLD = solution([A, B, C, "#### 6"], right=True, name="p/1")
TREE = [
    rollout(1, [B, C, "#### 6"], True, 0),
    rollout(1, [B, "c: <<10-5=5>>5", "#### 5"], False, 1),
    rollout(2, ["c: <<9-3=6>>6", "#### 6"], True, 0),  # right, but it never uses b's 10
    rollout(2, [C, "#### 6"], True, 1),
    rollout(2, ["c: <<10-2=8>>8", "#### 8"], False, 2),
    rollout(3, ["#### 6"], True, 0),  # right in spite of the 7, which it ignores
    rollout(3, ["#### 7"], False, 1),
]


@pytest.mark.parametrize(
    ("reading", "propagation", "expected"),
    [
        ("each", False, [1 / 2, 1 / 3, 0, 0]),
        ("off", False, [1 / 2, 2 / 3, 1 / 2, 0]),
        ("off", True, [2 / 3, 2 / 3, 1 / 2, 0]),
    ],
)
def test_shares_of_right_and_consistent_rollouts(reading: str, propagation: bool, expected: list[float]):
    assert soft_labels.shares(DRAFT, TREE, reading, propagation) == pytest.approx(expected)


def test_a_right_trace_is_a_verifying_trace_of_its_own():
    assert soft_labels.shares(GOLD, (), "each", False) == [1, 1, 1, 1]
    wrong = rollout(1, [B, "#### 10"], False, trace="p/1")
    assert soft_labels.shares(GOLD, [wrong], "each", False) == [1 / 2, 1, 1, 1]
    assert soft_labels.shares(GOLD, [wrong], "each", True) == [1, 1, 1, 1]  # it leads to the right answer


def test_targets_of_traces_side_by_side():
    samples = [GOLD, solution(["#### 1"], name="p/2"), DRAFT, solution(["#### 2"], name="p/3")]  # one of four is right
    given = [DRAFT, GOLD], {"p/0": TREE}, samples, "each", True
    assert soft_labels.targets("share", *given) == [pytest.approx([1 / 2, 1 / 3, 0, 0]), [1, 1, 1, 1]]
    # From 1/4 to 1/2: no step of a right trace or before the slip is below 1; the slip loses all that is left.
    assert soft_labels.targets("ratio", *given) == [pytest.approx([1, 2 / 3, 0, 0]), [1, 1, 1, 1]]


OUTCOMES = st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=20)


@given(outcomes=OUTCOMES, propagation=st.booleans())
def test_a_share_is_positive_where_the_label_is(outcomes: list[tuple[int, bool]], propagation: bool):
    tree = [rollout(prefix, ["#### 6"], right, k) for k, (prefix, right) in enumerate(outcomes)]
    made = labels.raw_labels(DRAFT, tree, "off")
    made = labels.propagate(made) if propagation else made
    shares = soft_labels.shares(DRAFT, tree, "off", propagation)
    assert [int(share > 0) for share in shares] == made
    assert all(0 <= ratio <= 1 for ratio in soft_labels.ratios(shares, 0.5))


def test_an_unknown_target_is_refused():
    with pytest.raises(InputError, match=r"sorm\.target='soft': expected one of any, share, ratio"):
        soft_labels.check_target("soft")
