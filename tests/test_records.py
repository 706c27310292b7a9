"""The nouns: steps of a solution, and fingerprints."""

from __future__ import annotations

import dataclasses

import pytest
from handmade import rollout, solution
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.records import Solution, fingerprint


def test_a_solution_has_one_line_a_step():
    written = solution(["Ben = Ann + 3: <<7+3=10>> Ben 10", "#### 10"])
    assert written.steps == ["Ben = Ann + 3: <<7+3=10>> Ben 10", "#### 10"]
    assert written.num_steps == 2 == len(written.step_ends)
    assert written.tokens[written.step_ends[-1] :] == (2,)  # only the end token belongs to no step


def test_nothing_written_is_no_step_not_one_empty_step():
    assert Solution("s", "p", (), (), "", right=False).steps == []
    assert Solution("s", "p", (), (), "", right=False).num_steps == 0
    assert dataclasses.replace(rollout(1, [], right=False)).steps == []


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        solution(["#### 1"]).right = True  # pyright: ignore


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=2, max_size=4))
def test_a_fingerprint_ignores_the_order_of_keys(value: dict):
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))
    assert len(fingerprint(value)) == 16


def test_a_fingerprint_changes_with_any_part():
    values = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {"a": "1"}, {"a": 1, "b": None}, {}, [], "", None, {"a": True}]
    assert len({fingerprint(v) for v in values}) == len(values)
