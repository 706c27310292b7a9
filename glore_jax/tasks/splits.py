"""Which split a problem belongs to, and that no problem is in two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from glore_jax.errors import InputError
from glore_jax.records import Problem


def same_question(question: str) -> str:
    """A question without differences of white space."""
    return " ".join(question.split())


def tenth(text: str) -> int:
    """Which of ten equal parts, 0 to 9, a text belongs to: a matter of the text alone, today and on any machine."""
    return int(hashlib.sha256(same_question(text).encode()).hexdigest(), 16) % 10


def check_apart(splits: Mapping[str, Sequence[Problem]]) -> None:
    """Refuses splits that share a question.

    Raises:
      InputError: with the two splits, how many questions they share, and one of them.
    """
    questions = {name: {same_question(p.question) for p in rows} for name, rows in splits.items()}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        if shared := sorted(questions[a] & questions[b]):
            raise InputError(f"task.{a} and task.{b} share {len(shared)} questions, such as {shared[0][:80]!r}")


def named(name: str, rows: Sequence[Problem]) -> list[Problem]:
    """Problems with the name of their split in front of their ids."""
    return [Problem(f"{name}-{p.id}", p.question, p.answer, p.solution, p.facts) for p in rows]
