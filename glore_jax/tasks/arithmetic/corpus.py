"""The text that the base model is made from: solved problems, problems solved twice, and notes.

As the web does for a large language model, the corpus shows worked solutions and also solutions
that are rewritten: a first attempt, mostly with a slip, then the right one. Notes work out the number
of everybody in a story, without a question: they teach which number and which operation belong to whom.
The corpus shares no problem with train, dev and test, and no document says where a slip is.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from glore_jax.tasks.arithmetic.generator import (
    CONSTANTS,
    STEP_COUNTS,
    compute,
    make_problem,
    split_of,
    statements,
    worked_lines,
)
from glore_jax.tasks.arithmetic.quantities import NAMES, SYMBOL, THINGS, Quantity, World
from glore_jax.tasks.arithmetic.slips import slip_lines

_RIGHT_ATTEMPTS = 0.15  # share of first attempts that need no rewriting
_KINDS = tuple(kind for kind in SYMBOL if kind != "total")  # of relations in notes


@dataclasses.dataclass(frozen=True)
class Document:
    """Attributes: question (of notes: the story alone), attempt (lines of a first solution), solution (lines)."""

    question: str
    attempt: tuple[str, ...]
    solution: tuple[str, ...]


def make_document(
    seed: int, index: int, step_weights: Sequence[float], revised_share: float, notes_share: float
) -> Document:
    """Document number `index`: notes by a share of `notes_share`, of the rest `revised_share` with a first attempt.

    Args:
      step_weights: relative frequency of 2, 3, ... 8 steps of a problem, and of as many people in notes.
    """
    rng = random.Random(f"{seed}/document/{index}")
    if rng.random() < notes_share:
        return _notes(rng.choices(STEP_COUNTS, weights=step_weights)[0], rng)
    problem = make_problem(seed, "corpus", index, step_weights)
    lines = problem.solution.split("\n")
    attempt: list[str] | None = []
    if rng.random() < revised_share:
        right = rng.random() < _RIGHT_ATTEMPTS
        attempt = lines if right else slip_lines(World.from_json(problem.facts), lines, rng)
    return Document(problem.question, tuple(attempt or ()), tuple(lines))


def _notes(people: int, rng: random.Random) -> Document:
    """Random statements about so many people, and the number of each of them worked out, in an order that can be.

    Whom a statement refers to is drawn from all that come before, so neither the order of the lines nor, where all
    relations are of one or two kinds, their signs tell whose number is asked for: only the name does.
    """
    things = rng.sample(THINGS, 2)
    kinds = rng.sample(_KINDS, rng.choice((1, 2, len(_KINDS))))
    given_share = rng.choice((0.2, 0.5))
    table: dict[str, Quantity] = {}
    for name in rng.sample(NAMES, people):
        given = Quantity(name, rng.choice(things), "given", (), rng.randint(*CONSTANTS["given"]), 0)
        computed = None if rng.random() < given_share else _computed(given, rng.choice(kinds), table, rng)
        table[name] = computed or dataclasses.replace(given, value=given.constant)
    story = " ".join(statements([*table.values()], rng))
    return Document(story, (), tuple(worked_lines([*table.values()], table, rng)))


def _computed(of: Quantity, kind: str, table: dict[str, Quantity], rng: random.Random) -> Quantity | None:
    """The same person's and thing's quantity, computed from others of `table`.

    None where that does not work out, or would be a problem of train, dev or test.
    """
    places = 1 if kind in CONSTANTS else 2
    if places > len(table):
        return None
    constant = rng.randint(*CONSTANTS[kind]) if kind in CONSTANTS else None
    operands = tuple(rng.sample([*table], places))
    made = compute(dataclasses.replace(of, kind=kind, operands=operands, constant=constant), table)
    if made is None:
        return None
    world = World((*table.values(), made), made.label)
    return made if len(world.needed()) < STEP_COUNTS[0] or split_of(world) == "corpus" else None
