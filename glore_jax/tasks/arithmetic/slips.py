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
    labels = [line.split(":")[0] for line in lines[:-1]]
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
        if i == at:
            a, b, symbol, change = _slip(a, b, symbol, values, rng)
        result = apply_symbol(symbol, a, b)
        if result is None or not 0 < result + change <= _LIMIT:
            return None
        values[label] = result + change
        out.append(f"{label}: <<{a}{symbol}{b}={result + change}>>{result + change}")
    return [*out, f"#### {values[world.target]}"]


def _slip(a: int, b: int, symbol: str, values: dict[str, int], rng: random.Random) -> tuple[int, int, str, int]:
    """One false equation: a wrong number of another quantity, a wrong operation or a wrong result."""
    kind = rng.choice(("operand", "operand", "constant", "symbol", "result", "result"))
    if kind == "operand":
        return rng.choice([v for v in values.values() if v != a] or [a + 1]), b, symbol, 0
    if kind == "constant":
        return a, rng.choice([n for n in range(2, 10) if n != b]), symbol, 0
    if kind == "symbol":
        return a, b, rng.choice([s for s in "+-*/" if s != symbol]), 0
    return a, b, symbol, rng.choice((-10, -2, -1, 1, 2, 10))
