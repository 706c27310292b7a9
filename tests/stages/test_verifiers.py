"""Which traces are labelled."""

from __future__ import annotations

from glore_jax.records import Solution
from glore_jax.stages.verifiers import select


def trace(problem: str, tokens: tuple[int, ...], right: bool, steps: int = 2) -> Solution:
    return Solution(f"{problem}/{tokens}", problem, tokens, tuple(range(1, steps + 1)), "a\nb", right)


def test_the_first_different_traces_of_the_named_problems_are_labelled():
    wrong, again, other = trace("p", (1, 2), False), trace("p", (1, 2), False), trace("p", (1, 3), False)
    right, short, elsewhere = trace("p", (1, 4), True), trace("p", (5,), False, steps=1), trace("q", (1, 2), False)
    traces = [short, wrong, again, right, other, elsewhere]
    assert select(traces, {"p"}, wrong=2, right=1, solved_only=False) == [wrong, right, other]
    assert select(traces, {"p", "q"}, wrong=1, right=0, solved_only=False) == [wrong, elsewhere]
    assert select(traces, {"p", "q"}, wrong=1, right=0, solved_only=True) == [wrong]  # nothing is right on q
    assert select(traces, set(), wrong=1, right=1, solved_only=False) == []
