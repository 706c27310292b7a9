"""Solutions with a slip: one false step, and what follows from it.

They stand only in the corpus that the base model is made from, as the web holds wrong solutions
beside right ones; verifiers and refiners are trained on the student's own rollouts alone.
"""

from __future__ import annotations

import random

from glore_jax.tasks.arithmetic.quantities import SYMBOL, Quantity, World, apply_symbol

_LIMIT = 1999
_OFF = (-100, -10, -2, -1, 1, 2, 10, 100)


def slip_lines(world: World, lines: list[str], rng: random.Random) -> list[str] | None:
    """The solution `lines` with one step made false and later steps carrying its wrong value.

    Returns None where the slip leads out of the numbers that solutions hold (negative, over 1999, or
    a division with a remainder).
    """
    table = world.by_label()
    at = rng.randrange(len(lines) - 1)
    values: dict[str, int] = {}
    true = {q.label: q.value for q in world.quantities}
    out = []
    for i, line in enumerate(lines[:-1]):
        label, *said = line.split(":")[0].replace(" =", "").split()
        if len(said) == 1:  # a given
            values[label] = _misread(true[label], world, rng) if i == at else true[label]
            if not 0 < values[label] <= _LIMIT:
                return None
            out.append(f"{label} {values[label]}")
            continue
        first, symbol, second = said
        quantity, terms, change = table[label], [first, second], 0
        if i == at:
            terms, symbol, change = _slip(quantity, terms, world, rng)
        a, b = (int(term) if term.isdigit() else values.get(term, true[term]) for term in terms)
        if quantity.kind == "difference" and symbol == "-":
            a, b = max(a, b), min(a, b)
        result = apply_symbol(symbol, a, b)
        if result is None or not 0 < result + change <= _LIMIT:
            return None
        values[label] = result + change
        relation = f" {symbol} ".join(terms)
        out.append(f"{label} = {relation}: <<{a}{symbol}{b}={result + change}>> {label} {result + change}")
    return [*out, f"#### {values[world.target]}"]


def _misread(number: int, world: World, rng: random.Random) -> int:
    """Another number for one that the question states: mostly one that stands elsewhere in it, or one that is off."""
    others = sorted({q.constant for q in world.quantities if q.constant not in (None, number)})
    return rng.choice(others) if others and rng.random() < 0.7 else number + rng.choice((-2, -1, 1, 2))


def _slip(quantity: Quantity, terms: list[str], world: World, rng: random.Random) -> tuple[list[str], str, int]:
    """A false relation: another source, another number, another operation, or (last entry) a result that is off."""
    kind = rng.choice(("source", "source", "constant", "symbol", "result", "result"))
    symbol = SYMBOL[quantity.kind]
    others = [q.label for q in world.quantities if q.label not in (*quantity.operands, quantity.label)]
    if kind == "source" and others:
        return [rng.choice(others), terms[1]], symbol, 0
    if kind == "constant" and quantity.constant is not None:
        return [terms[0], str(_misread(quantity.constant, world, rng))], symbol, 0
    if kind == "symbol":
        return terms, rng.choice([s for s in "+-*/" if s != symbol]), 0
    return terms, symbol, rng.choice(_OFF)
