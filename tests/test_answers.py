"""When two answers are equal: as numbers, whatever is written around them, and never as parts of one another."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glore_jax import answers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("-18", -18),
        ("\N{MINUS SIGN}18", -18),
        ("18.", 18),
        ("18.0", 18),
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("$18", 18),
        ("$ 18", 18),
        ("-$18", -18),
        ("$-18", -18),
        ("£1,234.50", Fraction(2469, 2)),
        ("1,000,000", 1_000_000),
        ("about 3,", 3),
        ("50%", 50),
        ("50 %", 50),
        ("3/4", Fraction(3, 4)),
        ("3 / 4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("3/4 of a cake", Fraction(3, 4)),
        ("1.5/2", Fraction(3, 4)),
        ("3/0.5", 6),
        ("2 1/2 cups", Fraction(5, 2)),
        ("-2 1/2", Fraction(-5, 2)),
        ("1,234 1/2", Fraction(2469, 2)),
        ("1e-07", Fraction(1, 10**7)),
        ("2.5E3", 2500),
        ("18 dollars", 18),
        ("18 eggs", 18),
        ("x = 18", 18),
        ("7 + 11 = 18", 18),
        ("10-4", 4),
        ("25 m^2", 25),
        ("25 cm2 of paper", 25),
        ("1,234.50 m/s", Fraction(2469, 2)),
        ("US$18.50", Fraction(37, 2)),
        ("2e3 CO2", 2000),
    ],
)
def test_numbers_are_read_exactly(text: str, number: Fraction):
    assert answers.parse_number(text) == number


@pytest.mark.parametrize("text", ["", "none", "$", "-", ".", ",", "1/0", "%", "five", "A4", "x^2", "cm22"])
def test_what_states_no_number_is_none(text: str):
    assert answers.parse_number(text) is None


def test_a_huge_exponent_is_not_multiplied_out():
    assert answers.parse_number("1e999999999") == 999999999  # read as two numbers, at once


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("1", "18"),
        ("8", "18"),
        ("18", "1"),
        ("180", "18"),
        ("1.8", "18"),
        ("-18", "18"),
        ("1/2", "2"),
        ("18 1/2", "18"),
    ],
)
def test_a_part_of_the_answer_is_not_the_answer(given_: str, expected: str):
    assert not answers.equal(given_, expected)


def test_equal_numbers_written_differently():
    assert answers.equal("$1,250.00", "1250")
    assert answers.equal("0.75", "3/4")
    assert answers.equal("18.0 dollars", "18")
    assert not answers.equal(None, "18")
    assert not answers.equal("", "18")
    assert not answers.equal("none", "none")


def test_the_final_answer_stands_after_the_last_marker():
    assert answers.final_answer("a: <<1+2=3>>3\n#### 3\n") == "3"
    assert answers.final_answer("#### 3\n#### 4") == "4"
    assert answers.final_answer("####5") == "5"
    assert answers.final_answer("####") == ""
    assert answers.final_answer("so it is 5") is None
    assert answers.final_answer("") is None


def test_what_follows_the_answer_line_is_no_part_of_the_answer():
    assert answers.final_answer("#### 12\nBen = Ann + 2: <<1+2=3>>3") == "12"


@given(st.integers(-(10**9), 10**9))
def test_thousands_separators_change_nothing(number: int):
    assert answers.parse_number(f"{number:,}") == number


@given(st.decimals(-(10**6), 10**6, places=2), st.sampled_from(["{}", "$ {}", "{} dollars", "x = {}", "{}%", "({})"]))
def test_signs_and_units_change_nothing(number, frame: str):
    assert answers.parse_number(frame.format(number)) == Fraction(number)


@given(st.floats(-(10.0**20), 10.0**20, allow_nan=False))
@example(1e-7)
@example(1e16)
def test_a_float_is_read_as_python_writes_it(number: float):
    if abs(number) > 1e-98 or number == 0:
        assert answers.parse_number(str(number)) == Fraction(repr(number))


@given(st.integers(0, 999), st.integers(0, 999))
def test_equal_means_the_same_number(a: int, b: int):
    assert answers.equal(str(a), str(b)) == (a == b)
    assert answers.equal(f"#{a} apples", f"{b}.00") == (a == b)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_mixed_numbers(whole: int, above: int, below: int):
    assert answers.parse_number(f"{whole} {above}/{below}") == whole + Fraction(above, below)


@given(st.text(max_size=40) | st.text("0123456789,./-$%eE ^m\N{MINUS SIGN}", max_size=60))
@example("9" * 5000)
@example("1/" + "9" * 5000)
@example("1," * 50_000)
@example("1 " * 50_000 + "1/1")
@example("-" * 50_000)
@example("1e" * 50_000)
@example("1/" * 50_000)
@pytest.mark.timeout(60)
def test_any_text_is_answered(text: str):
    number = answers.parse_number(text)
    assert number is None or isinstance(number, Fraction)
    assert number is None or any(c.isdigit() for c in text)
