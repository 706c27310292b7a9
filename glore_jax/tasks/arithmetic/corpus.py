"""The text that the base model is made from: solved problems, problems solved twice, and notes.

As the web does for a large language model, the corpus shows worked solutions and also solutions
that are rewritten: a first attempt, mostly with a slip, then the right one. Notes write the statements
of a story down as relations, in any order and without solving anything: they teach which number and
which operation belong to whom. The corpus shares no problem with train, dev and test, and no document
says where a slip is.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from glore_jax.tasks.arithmetic.generator import make_problem, statements, step_text
from glore_jax.tasks.arithmetic.quantities import World
from glore_jax.tasks.arithmetic.slips import slip_lines

_RIGHT_ATTEMPTS = 0.15  # share of first attempts that need no rewriting


@dataclasses.dataclass(frozen=True)
class Document:
    """Attributes: question (of notes: the story alone), attempt (lines of a first solution), solution (lines)."""

    question: str
    attempt: tuple[str, ...]
    solution: tuple[str, ...]


def make_document(
    seed: int, index: int, step_weights: Sequence[float], revised_share: float, notes_share: float
) -> Document:
    """Document number `index`: notes by a share of `notes_share`, of the rest `revised_share` with a first attempt."""
    problem = make_problem(seed, "corpus", index, step_weights)
    lines = problem.solution.split("\n")
    rng = random.Random(f"{seed}/document/{index}")
    if rng.random() < notes_share:
        return _notes(World.from_json(problem.facts), rng)
    attempt: list[str] | None = []
    if rng.random() < revised_share:
        right = rng.random() < _RIGHT_ATTEMPTS
        attempt = lines if right else slip_lines(World.from_json(problem.facts), lines, rng)
    return Document(problem.question, tuple(attempt or ()), tuple(lines))


def _notes(world: World, rng: random.Random) -> Document:
    """Some of the statements, each as a relation such as `Ben = Ann + 3`, in another order.

    Mostly a few of them: what belongs to a name is easier to find among two or three than among eight.
    """
    stated = [q for q in world.quantities if q.kind != "total"]
    stated = rng.sample(stated, rng.randint(2, len(stated)))
    story = " ".join(statements(stated, rng))
    rng.shuffle(stated)
    return Document(story, (), tuple(step_text(q, world.by_label()).split(":")[0] for q in stated))
