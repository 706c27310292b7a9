"""When two answers are equal: numerically, never by substring."""

from __future__ import annotations

import re
from fractions import Fraction

MARKER = "####"
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?|-?\.\d+")


def parse_number(text: str) -> Fraction | None:
    """The number that a final answer states, exactly, or None.

    The last number in the text counts; currency signs, thousands separators and units are ignored.

    >>> parse_number("$1,234.50"), parse_number("3/4 of a cake"), parse_number("none")
    (Fraction(2469, 2), Fraction(3, 4), None)
    """
    found = _NUMBER.findall(text)
    if not found:
        return None
    try:
        return Fraction(found[-1].replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def final_answer(solution: str) -> str | None:
    """What stands after the last `####` of a solution, or None where there is none."""
    _, marker, tail = solution.rpartition(MARKER)
    return tail.strip() if marker else None


def equal(given: str | None, expected: str) -> bool:
    """Whether a final answer equals the expected one as a number.

    >>> equal("18.0 dollars", "18"), equal("1", "18"), equal(None, "18")
    (True, False, False)
    """
    if given is None:
        return False
    number = parse_number(given)
    return number is not None and number == parse_number(expected)
