"""How final answers are compared: as numbers, or as LaTeX where the right answer is written between \\( and \\).

So a problem says by its answer how it is judged, in every table that it stands in. Which it is comes from the task's
configuration (`task.answers`). Comparisons of LaTeX share one judge, and each pair is judged once.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Hashable, Sequence

from glore_jax import answers
from glore_jax.errors import InputError
from glore_jax.latex_answers import Judge

KINDS = ("number", "latex")
_OPEN, _CLOSE = r"\(", r"\)"
_REMEMBERED = 1 << 16  # pairs of answers in LaTeX


def check(kind: str) -> None:
    """InputError where `task.answers` is none of `KINDS`, or math-verify is not installed where it is needed."""
    if kind not in KINDS:
        raise InputError(f"task.answers={kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "latex":
        _equal(r"\frac{1}{2}", "0.5")  # starts the judge, before any compute is spent


def written(answer: str, kind: str) -> str:
    """The right answer as a problem has it.

    >>> written("\\\\frac{1}{2}", "latex"), written("12", "number"), written("\\\\(12\\\\)", "number")
    ('\\\\(\\\\frac{1}{2}\\\\)', '12', '12')
    """
    bare = _bare(answer)
    return f"{_OPEN}{' '.join(bare.split())}{_CLOSE}" if kind == "latex" else bare


def is_latex(answer: str) -> bool:
    """Whether a right answer is one in LaTeX."""
    return answer.startswith(_OPEN) and answer.endswith(_CLOSE)


def _bare(answer: str) -> str:
    return answer[len(_OPEN) : -len(_CLOSE)].strip() if is_latex(answer) else answer


def equal(given: str | None, expected: str) -> bool:
    """Whether a final answer equals the right one, in the way that the right one asks for.

    >>> equal("18 eggs", "18"), equal("0.5 m", "\\\\(0.50\\\\)"), equal(None, "\\\\(x\\\\)")
    (True, True, False)
    """
    if not is_latex(expected):
        return answers.equal(given, expected)
    return given is not None and _equal(_bare(given), _bare(expected))


def votes(solutions: Sequence[str], latex: bool) -> list[Hashable | None]:
    """For each solution text a key that those of an equal final answer share; None where there is no answer.

    In LaTeX an answer joins the first group whose first answer it equals.
    """
    found = [answers.final_answer(text) or "" for text in solutions]
    if not latex:
        return [answers.parse_number(text) for text in found]
    found = [_bare(text) for text in found]
    groups: dict[str, None] = {}
    keys: list[Hashable | None] = []
    for text in found:
        first = next((known for known in groups if text and _equal(text, known)), text)
        groups |= {first: None} if text else {}
        keys.append(first or None)
    return keys


def overdue() -> int:
    """How many pairs took the judge longer than its deadline so far; they count as different."""
    return _judge().overdue


@functools.cache
def _judge() -> Judge:
    """Its process starts with the first pair that needs it, and ends with this one."""
    made = Judge()
    atexit.register(made.__exit__)
    return made


@functools.lru_cache(_REMEMBERED)
def _equal(given: str, expected: str) -> bool:
    return _judge().equal(given, expected)
