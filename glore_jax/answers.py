"""When two answers are equal: numerically, never by substring."""

from __future__ import annotations

import re
from fractions import Fraction

MARKER = "####"
_NUMBER = re.compile(
    r"(?P<sign>(?<!\d)[-\N{MINUS SIGN}])?[$€£]?"  # the dash of 10-4 is no sign
    r"(?:(?<![A-Za-z^\d])|(?<=\d[eE]))"  # the 2 of cm2 and m^2 is no number
    r"(?:(?P<whole>\d[\d,]*) (?=\d+/\d))?"
    r"(?P<number>(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,2}(?!\d))?)"
    r"(?: ?/ ?(?P<below>\d+(?:\.\d+)?|\.\d+))?"
)


def parse_number(text: str) -> Fraction | None:
    """The number that a final answer states, exactly, or None.

    The last number in the text counts; currency signs, thousands separators and units are ignored. A number of
    thousands of digits, which Python refuses to read, is none.

    >>> parse_number("-$1,234.50"), parse_number("1 3/4 of a cake"), parse_number("none")
    (Fraction(-2469, 2), Fraction(7, 4), None)
    """
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    last = found[-1]
    try:
        below = Fraction(last["below"] or 1)
        size = Fraction((last["whole"] or "0").replace(",", "")) + Fraction(last["number"].replace(",", "")) / below
    except (ZeroDivisionError, ValueError):
        return None
    return -size if last["sign"] else size


def final_answer(solution: str) -> str | None:
    """What stands after the last `####` of a solution, up to the line's end, or None where there is no `####`."""
    _, marker, tail = solution.rpartition(MARKER)
    return tail.strip().partition("\n")[0] if marker else None


def equal(given: str | None, expected: str) -> bool:
    """Whether a final answer equals the expected one as a number.

    >>> equal("18.0 dollars", "18"), equal("1", "18"), equal(None, "18")
    (True, False, False)
    """
    if given is None:
        return False
    number = parse_number(given)
    return number is not None and number == parse_number(expected)
