"""A right answer says how it is compared: numbers as ever, formulas by the judge, each pair once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax import answers, final_answers, latex_answers
from glore_jax.errors import InputError
from glore_jax.latex_answers import Judge
from glore_jax.text import formats

HALF = r"\(\frac{1}{2}\)"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    """A judge of this test's own, with nothing remembered."""
    final_answers._equal.cache_clear()
    with Judge(seconds=20.0) as judge:
        monkeypatch.setattr(final_answers, "_judge", lambda: judge)
        yield judge
    final_answers._equal.cache_clear()


@pytest.mark.parametrize(("text", "right"), [(r"\dfrac12", True), ("0.5", True), (r"\frac{2}{1}", False), ("2", False)])
def test_a_formula_is_compared_as_mathematics(text: str, right: bool):
    assert formats.is_right(f"so\n#### {text}", HALF) == right


def test_a_solution_without_an_answer_is_wrong():
    assert not formats.is_right("so it is one half", HALF)
    assert not formats.is_right("####", HALF)


@given(st.text("0123456789.,/-$ a", max_size=8), st.text("0123456789.,/-$ a", max_size=8))
def test_numbers_are_compared_as_ever(one: str, other: str):
    assert final_answers.equal(one, other) == answers.equal(one, other)
    assert formats.is_right(f"#### {one}", other) == answers.equal(one.strip(), other)
    assert final_answers.votes([f"#### {one}"], latex=False) == [answers.parse_number(one.strip())]


def test_equal_formulas_vote_together():
    texts = [r"#### \frac{1}{2}", "#### 0.5", r"#### \frac{3}{2}", "no answer", "####", r"#### \frac32"]
    a, b, c, *silent, d = final_answers.votes(texts, latex=True)
    assert a == b != c == d
    assert silent == [None, None]
    assert len(set(final_answers.votes(texts, latex=False)[:3])) == 2  # as numbers the halves and 3/2 would be one 2


def test_a_pair_that_takes_too_long_is_wrong_and_counted_once(fresh: Judge):
    assert formats.is_right("#### 0.5", HALF)
    fresh.seconds = 1.0
    for _ in range(2):
        assert not formats.is_right("#### 9^{9^{9^{9}}}", r"\(\pi\)")
    assert final_answers.overdue() == 1


def test_what_is_missing_is_told_at_once(fresh: Judge, monkeypatch: pytest.MonkeyPatch):
    final_answers.check("number")
    with pytest.raises(InputError, match=r"task\.answers='tex': expected one of number, latex"):
        final_answers.check("tex")
    without = "import sys; from multiprocessing.connection import Connection as C; C(int(sys.argv[1])).send('none')"
    monkeypatch.setattr(latex_answers, "_WORK", without)
    with pytest.raises(InputError, match="need math-verify"):
        final_answers.check("latex")
