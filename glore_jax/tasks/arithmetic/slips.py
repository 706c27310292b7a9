"""Solutions with a slip: one false step, and what follows from it.

They stand only in the corpus that the base model is made from, as the web holds wrong solutions
beside right ones; verifiers and refiners are trained on the student's own rollouts alone.
"""

from __future__ import annotations

import random

from glore_jax.tasks.arithmetic.quantities import SYMBOL, World, apply_symbol, numbers_of

_LIMIT = 199


def slip_lines(world: World, lines: list[str], rng: random.Random) -> list[str] | None:
    """The solution `lines` with one step made false and later steps carrying its wrong value.

    Returns None where the slip leads out of the numbers that solutions hold (negative, over 199, or
    a division with a remainder).
    """
    table = world.by_label()
    labels = [line.split(" from ")[0] for line in lines[:-1]]
    at = rng.randrange(len(labels))
    values = {q.label: q.value for q in world.quantities}
    out = []
    for i, label in enumerate(labels):
        quantity = table[label]
        a, b = numbers_of(quantity, table)
        if quantity.operands:
            now = [values[o] for o in quantity.operands] + ([quantity.constant] if quantity.constant else [])
            a, b = sorted(now, reverse=True) if quantity.kind == "difference" else now
        symbol, change = SYMBOL[quantity.kind], 0
        source = list(quantity.operands)
        if i == at:
            kind = rng.choice(("operand", "operand", "constant", "symbol", "result", "result"))
            others = [other for other in values if other not in quantity.operands and other != label]
            if kind == "operand" and others:
                source[0] = rng.choice(others)
                a = values[source[0]]
            else:
                a, b, symbol, change = _slip(kind, a, b, symbol, rng)
        result = apply_symbol(symbol, a, b)
        if result is None or not 0 < result + change <= _LIMIT:
            return None
        values[label] = result + change
        out.append(f"{label} from {' and '.join(source)}: <<{a}{symbol}{b}={result + change}>>{result + change}")
    return [*out, f"#### {values[world.target]}"]


def _slip(kind: str, a: int, b: int, symbol: str, rng: random.Random) -> tuple[int, int, str, int]:
    """A false equation: another constant, another operation, or (last entry) a result that is off."""
    if kind == "constant":
        return a, rng.choice([n for n in range(2, 10) if n != b]), symbol, 0
    if kind == "symbol":
        return a, b, rng.choice([s for s in "+-*/" if s != symbol]), 0
    return a, b, symbol, rng.choice((-10, -2, -1, 1, 2, 10))
