"""The text that the base model is made from: solved problems, and problems solved twice.

As the web does for a large language model, the corpus shows worked solutions and also solutions
that are rewritten: a first attempt, mostly with a slip, then the right one. It shares no problem
with train, dev and test, and no document says where a slip is.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from glore_jax.tasks.arithmetic.generator import make_problem
from glore_jax.tasks.arithmetic.quantities import World
from glore_jax.tasks.arithmetic.slips import slip_lines

_RIGHT_ATTEMPTS = 0.15  # share of first attempts that need no rewriting


@dataclasses.dataclass(frozen=True)
class Document:
    """Attributes: question, attempt (lines of a first solution; empty where there is none), solution (lines)."""

    question: str
    attempt: tuple[str, ...]
    solution: tuple[str, ...]


def make_document(seed: int, index: int, step_weights: Sequence[float], revised_share: float) -> Document:
    """Document number `index`; a share of `revised_share` holds a first attempt."""
    problem = make_problem(seed, "corpus", index, step_weights)
    lines = problem.solution.split("\n")
    rng = random.Random(f"{seed}/document/{index}")
    attempt: list[str] | None = []
    if rng.random() < revised_share:
        right = rng.random() < _RIGHT_ATTEMPTS
        attempt = lines if right else slip_lines(World.from_json(problem.facts), lines, rng)
    return Document(problem.question, tuple(attempt or ()), tuple(lines))
