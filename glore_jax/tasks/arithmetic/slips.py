"""Solutions with a slip: one false step, and what follows from it.

They stand only in the corpus that the base model is made from, as the web holds wrong solutions
beside right ones; verifiers and refiners are trained on the student's own rollouts alone.
"""

from __future__ import annotations

import random

from glore_jax.tasks.arithmetic.quantities import SYMBOL, Quantity, World, apply_symbol

_LIMIT = 199
_OFF = (-10, -2, -1, 1, 2, 10)


def slip_lines(world: World, lines: list[str], rng: random.Random) -> list[str] | None:
    """The solution `lines` with one step made false and later steps carrying its wrong value.

    Returns None where the slip leads out of the numbers that solutions hold (negative, over 199, or
    a division with a remainder).
    """
    table = world.by_label()
    at = rng.randrange(len(lines) - 1)
    values: dict[str, int] = {}
    true = {q.label: q.value for q in world.quantities}
    out = []
    for i, line in enumerate(lines[:-1]):
        label, _, *said = line.split(":")[0].split()
        if len(said) == 1:  # a given
            values[label] = _misread(label, true, rng) if i == at else true[label]
            if not 0 < values[label] <= _LIMIT:
                return None
            out.append(f"{label} = {values[label]}")
            continue
        first, symbol, second = said
        quantity, terms, change = table[label], [first, second], 0
        if i == at:
            terms, symbol, change = _slip(quantity, terms, true, rng)
        a, b = (int(term) if term.isdigit() else values.get(term, true.get(term, 0)) for term in terms)
        if quantity.kind == "difference" and symbol == "-":
            a, b = max(a, b), min(a, b)
        result = apply_symbol(symbol, a, b)
        if result is None or not 0 < result + change <= _LIMIT:
            return None
        values[label] = result + change
        relation = f" {symbol} ".join(terms)
        out.append(f"{label} = {relation}: <<{a}{symbol}{b}={result + change}>>{result + change}")
    return [*out, f"#### {values[world.target]}"]


def _misread(label: str, true: dict[str, int], rng: random.Random) -> int:
    """Another number for a given: somebody else's, or one that is off."""
    others = sorted({value for value in true.values() if value != true[label]})
    return rng.choice(others) if others and rng.random() < 0.7 else true[label] + rng.choice(_OFF)


def _slip(
    quantity: Quantity, terms: list[str], values: dict[str, int], rng: random.Random
) -> tuple[list[str], str, int]:
    """A false relation: another source, another constant, another operation, or (last entry) a result that is off."""
    kind = rng.choice(("source", "source", "constant", "symbol", "result", "result"))
    symbol = SYMBOL[quantity.kind]
    others = [name for name in values if name not in (*quantity.operands, quantity.label)]
    if kind == "source" and others:
        return [rng.choice(others), terms[1]], symbol, 0
    if kind == "constant" and quantity.constant is not None:
        return [terms[0], str(rng.choice([n for n in range(2, 10) if n != quantity.constant]))], symbol, 0
    if kind == "symbol":
        return terms, rng.choice([s for s in "+-*/" if s != symbol]), 0
    return terms, symbol, rng.choice(_OFF)
