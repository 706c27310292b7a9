"""Makes word problems: the same (seed, split, index) always gives the same problem.

Splits are disjoint by construction: a world belongs to the split that the hash of its signature (what
the target is computed from, whoever has it) falls into, and a draw that falls elsewhere is drawn again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Sequence

from glore_jax.records import Problem
from glore_jax.tasks.arithmetic.phrases import PATTERNS
from glore_jax.tasks.arithmetic.quantities import (
    MAX_VALUE,
    NAMES,
    SYMBOL,
    THINGS,
    Quantity,
    World,
    apply_symbol,
    numbers_of,
    parts_of,
)

# Share of the hash space, in percent. `corpus` is what the base model is made from.
SPLITS = {"corpus": range(0, 70), "train": range(70, 88), "dev": range(88, 92), "test": range(92, 100)}
STEP_COUNTS = tuple(range(2, 9))
_UNARY = ("more", "fewer", "times", "times", "half", "left", "cost", "cost")  # products are what is hard
# Two neighbours of one group would commute (3 more, then 6 fewer), and a solution that swaps them would be right.
_ADDITIVE = ("more", "fewer", "left", "sum", "difference", "total")
_MULTIPLICATIVE = ("times", "half", "cost")
# The numbers that a statement can hold. They have one digit: the second digit of another is one more thing to look up,
# and the one that a small model gets wrong.
CONSTANTS = {
    "given": (2, 9), "more": (2, 9), "fewer": (2, 9), "times": (3, 9), "half": (2, 2), "left": (2, 9), "cost": (3, 9),
}  # fmt: skip

# Share of the products of larger numbers that a solution works out by parts, and the most of them in a solution.
# The short way is what a student does first, the long one is easier: so another sample often mends what one got wrong.
_BY_PARTS = 0.35
_MOST_BY_PARTS = 2
_LARGE = 30


def compute(quantity: Quantity, table: dict[str, Quantity]) -> Quantity | None:
    """`quantity` with its value, of a difference with the larger operand first; None where that is out of range."""
    if quantity.kind == "difference":
        larger_first = sorted(quantity.operands, key=lambda label: -table[label].value)
        quantity = dataclasses.replace(quantity, operands=tuple(larger_first))
    value = apply_symbol(SYMBOL[quantity.kind], *numbers_of(quantity, table))
    return dataclasses.replace(quantity, value=value) if value is not None and 1 <= value <= MAX_VALUE else None


class _Draft:
    """A world under construction."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.quantities: list[Quantity] = []
        self.things = rng.sample(THINGS, rng.choice((1, 1, 1, 2)))

    def table(self) -> dict[str, Quantity]:
        return {q.label: q for q in self.quantities}

    def commutes(self, kind: str, operands: Sequence[str]) -> bool:
        """Whether an operand was made by an operation that can swap places with `kind`."""
        group = _ADDITIVE if kind in _ADDITIVE else _MULTIPLICATIVE
        table = self.table()
        return any(table[label].kind in group for label in operands)

    def person(self) -> str:
        """Somebody who has no quantity yet."""
        taken = {q.label for q in self.quantities}
        return self.rng.choice([name for name in NAMES if name not in taken])

    def add_given(self) -> str:
        person, thing, value = self.person(), self.rng.choice(self.things), self.rng.randint(*CONSTANTS["given"])
        self.quantities.append(Quantity(person, thing, "given", (), value, value))
        return person

    def add(self, kind: str, operands: Sequence[str]) -> str | None:
        """A quantity of `kind` computed from `operands`; None where its value would be out of range."""
        table = self.table()
        label, thing = "Total", ""
        if kind != "total":
            things = {"cost": "dollars", "left": table[operands[0]].thing}
            label, thing = self.person(), things.get(kind) or self.rng.choice(self.things)
        constant = self.rng.randint(*CONSTANTS[kind]) if kind in CONSTANTS else None
        quantity = compute(Quantity(label, thing, kind, tuple(operands), constant, 0), table)
        if quantity is None:
            return None
        self.quantities.append(quantity)
        return label


def _take_step(draft: _Draft, end: str, last: bool) -> str | None:
    """Computes a quantity from the `end` of the chain, often together with a new given, and returns it as the new end.

    Nothing is used twice, so what comes next always follows from the end. None where what was drawn is not allowed.
    """
    rng, before = draft.rng, len(draft.quantities)
    operands, kind = [end], rng.choice(_UNARY)
    if rng.random() < 0.3:
        kind = rng.choice(("sum", "sum", "difference", "total") if last else ("sum", "sum", "difference"))
        operands.append(draft.add_given())
    label = None if draft.commutes(kind, operands) else draft.add(kind, operands)
    if label is None:
        del draft.quantities[before:]  # a given that was made for it
    return label


def make_world(rng: random.Random, steps: int) -> World | None:
    """A world whose target takes exactly `steps` computations, with up to two idle quantities."""
    draft = _Draft(rng)
    end = draft.add_given()
    for done in range(steps):
        tries = (_take_step(draft, end, last=done + 1 == steps) for _ in range(8))
        made = next((label for label in tries if label), None)
        if made is None:
            return None
        end = made
    idle: list[str] = []
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        computed = draft.add(rng.choice(_UNARY), [rng.choice(idle)]) if idle and rng.random() < 0.5 else None
        idle.append(computed or draft.add_given())
    return World(tuple(draft.quantities), end)


def signature(world: World) -> str:
    """What the target is computed from: operations and numbers, without names, order and idle facts.

    >>> a, b = (Quantity(name, "nuts", "given", (), n, n) for name, n in (("Ann", 7), ("Ben", 5)))
    >>> c = Quantity("Cara", "nuts", "sum", ("Ann", "Ben"), None, 12)
    >>> signature(World((a, b, c), "Cara"))
    'sum(given(5),given(7))'
    """
    table = world.by_label()

    def write(label: str) -> str:
        quantity = table[label]
        parts = sorted(write(operand) for operand in quantity.operands)  # all two-place kinds are symmetric
        constant = [] if quantity.constant is None else [str(quantity.constant)]
        return f"{quantity.kind}({','.join([*parts, *constant])})"

    return write(world.target)


def split_of(world: World) -> str:
    """The split that a world belongs to."""
    residue = int(hashlib.sha256(signature(world).encode()).hexdigest(), 16) % 100
    return next(name for name, residues in SPLITS.items() if residue in residues)


def _say(pattern: str, quantity: Quantity) -> str:
    persons = dict(zip("rs", quantity.operands, strict=False))
    return pattern.format(A=quantity.label, x=quantity.thing, n=quantity.constant, **persons)


def statements(quantities: Sequence[Quantity], rng: random.Random) -> list[str]:
    """A sentence for each quantity (a total is only asked for), in random order."""
    sentences = []
    for q in quantities:
        if q.kind != "total":
            sentences.append(_say(rng.choice(PATTERNS[q.kind]), q))
    rng.shuffle(sentences)
    return sentences


def question_text(world: World, rng: random.Random) -> str:
    """The world's statements in random order, then the question."""
    target = world.by_label()[world.target]
    ask = f"ask_{target.kind}" if f"ask_{target.kind}" in PATTERNS else "ask"
    return " ".join([*statements(world.quantities, rng), _say(rng.choice(PATTERNS[ask]), target)])


def step_text(quantity: Quantity, table: dict[str, Quantity]) -> str:
    """The gold line: of a given its value; of a computed quantity the relation, in names and in numbers, and its value.

    >>> a = Quantity("Ann", "nuts", "given", (), 7, 7)
    >>> b = Quantity("Ben", "nuts", "more", ("Ann",), 3, 10)
    >>> step_text(a, {}), step_text(b, {a.label: a, b.label: b})
    ('Ann 7', 'Ben = Ann + 3: <<7+3=10>> Ben 10')
    """
    if quantity.kind == "given":
        return f"{quantity.label} {quantity.value}"
    a, b = numbers_of(quantity, table)
    symbol = SYMBOL[quantity.kind]
    terms = [*quantity.operands, *([] if quantity.constant is None else [str(quantity.constant)])]
    relation = f" {symbol} ".join(terms)
    return f"{quantity.label} = {relation}: <<{a}{symbol}{b}={quantity.value}>> {quantity.label} {quantity.value}"


def part_lines(quantity: Quantity, table: dict[str, Quantity]) -> list[str]:
    """A large number's product by parts: of the tens, of the ones, and their sum; [] of others and of a round one.

    >>> a = Quantity("Ann", "nuts", "given", (), 34, 34)
    >>> b = Quantity("Ben", "nuts", "times", ("Ann",), 7, 238)
    >>> part_lines(b, {a.label: a, b.label: b})
    ['Ben = Ann * 7: 34: <<30*7=210>>', 'Ben = Ann * 7: <<4*7=28>>', 'Ben = Ann * 7: <<210+28=238>> Ben 238']
    """
    if SYMBOL.get(quantity.kind) != "*":
        return []
    number, times = numbers_of(quantity, table)
    tens, ones = parts_of(number)
    if number < _LARGE or not ones:
        return []
    relation = f"{quantity.label} = {quantity.operands[0]} * {quantity.constant}:"
    return [
        f"{relation} {number}: <<{tens}*{times}={tens * times}>>",
        f"{relation} <<{ones}*{times}={ones * times}>>",
        f"{relation} <<{tens * times}+{ones * times}={quantity.value}>> {quantity.label} {quantity.value}",
    ]


def worked_lines(quantities: Sequence[Quantity], table: dict[str, Quantity], rng: random.Random) -> list[str]:
    """The lines that work out `quantities` in this order: now and then a product by parts, everything else at once."""
    lines: list[str] = []
    left = _MOST_BY_PARTS
    for quantity in quantities:
        parts = part_lines(quantity, table)
        by_parts = bool(parts) and left > 0 and rng.random() < _BY_PARTS
        left -= by_parts
        lines.extend(parts if by_parts else [step_text(quantity, table)])
    return lines


def solution_lines(world: World, rng: random.Random) -> list[str]:
    """A worked solution: the needed quantities, a given just before it is used; the answer last."""
    table, computed = world.by_label(), world.needed()
    used = {*computed, *(operand for label in computed for operand in table[label].operands)}
    order = [q for q in world.quantities if q.label in used]
    return [*worked_lines(order, table, rng), f"#### {table[world.target].value}"]


def make_problem(seed: int, split: str, index: int, step_weights: Sequence[float]) -> Problem:
    """Problem number `index` of a split.

    Args:
      seed: of the whole data set.
      split: a key of SPLITS.
      index: number within the split.
      step_weights: relative frequency of 2, 3, ... 8 steps.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    rng = random.Random(f"{seed}/{split}/{index}")
    steps = rng.choices(STEP_COUNTS, weights=step_weights)[0]
    while True:
        world = make_world(rng, steps)
        if world is not None and split_of(world) == split:
            break
    table = world.by_label()
    return Problem(
        id=f"{split}-{index}",
        question=question_text(world, rng),
        answer=str(table[world.target].value),
        solution="\n".join(solution_lines(world, rng)),
        facts=world.to_json(),
    )
