"""Solutions with a slip: one false step, and what follows from it.

They stand only in the corpus that the base model is made from, as the web holds wrong solutions
beside right ones; verifiers and refiners are trained on the student's own rollouts alone.
"""

from __future__ import annotations

import random

from glore_jax.tasks.arithmetic.quantities import SYMBOL, Quantity, World, apply_symbol, parts_of

_LIMIT = 5999
_OFF = (-100, -10, -2, -1, 1, 2, 10, 100)


def slip_lines(world: World, lines: list[str], rng: random.Random) -> list[str] | None:
    """The solution `lines` with one step made false and later steps carrying its wrong value.

    Returns None where the slip leads out of the numbers that solutions hold (negative, over 5999, a division
    with a remainder, or a product by parts of a number that has none).
    """
    table = world.by_label()
    at = rng.randrange(len(lines) - 1)
    values = {q.label: q.value for q in world.quantities}
    out: list[str] = []
    form, terms, symbol, parts = "", [""], "", [0]
    for i, line in enumerate(lines[:-1]):
        form = _form(line, form)
        label, *said = line.split(":")[0].replace(" =", "").split()
        if form == "given":
            values[label] = _misread(values[label], world, rng) if i == at else values[label]
            if not 0 < values[label] <= _LIMIT:
                return None
            out.append(f"{label} {values[label]}")
            continue
        change = 0
        if form in ("whole", "tens"):
            terms, symbol, parts = [said[0], said[2]], said[1], []
            if i == at:
                terms, symbol, change = _slip(table[label], terms, world, rng)
        elif i == at:
            change = rng.choice(_OFF)
        equation = _equation(form, terms, symbol, parts, values, table[label].kind)
        result = apply_symbol(equation[1], equation[0], equation[2]) if equation else None
        if equation is None or result is None or not 0 < result + change <= _LIMIT:
            return None
        result += change
        parts.append(result)
        whole = f" {_number(terms[0], values)}:" if form == "tens" else ""
        relation = f"{label} = {terms[0]} {symbol} {terms[1]}:{whole}"
        computed = f"{relation} <<{equation[0]}{equation[1]}{equation[2]}={result}>>"
        if form in ("whole", "joined"):
            values[label] = result
            computed += f" {label} {result}"
        out.append(computed)
    return [*out, f"#### {values[world.target]}"]


def _form(line: str, before: str) -> str:
    """What a line is: a given, a whole step, or of a product by parts the tens, the ones and their joining."""
    if "<<" not in line:
        return "given"
    if line.endswith(">>"):
        return "ones" if before == "tens" else "tens"
    return "joined" if before == "ones" else "whole"


def _equation(
    form: str, terms: list[str], symbol: str, parts: list[int], values: dict[str, int], kind: str
) -> tuple[int, str, int] | None:
    """The left side of a line's equation; None for the parts of what has none."""
    if form == "joined":
        return parts[0], "+", parts[1]
    a, b = (_number(term, values) for term in terms)
    if kind == "difference" and symbol == "-":
        a, b = max(a, b), min(a, b)
    if form == "whole":
        return a, symbol, b
    tens, ones = parts_of(a)
    if symbol != "*" or not (tens and ones):
        return None
    return (tens if form == "tens" else ones), "*", b


def _number(term: str, values: dict[str, int]) -> int:
    """What a relation's term stands for: a number, or a person's."""
    return int(term) if term.isdigit() else values[term]


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
