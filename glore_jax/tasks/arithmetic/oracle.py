"""Judges any solution text against the facts of its problem, exactly.

It judges what a step says, not whether it equals the generator's own solution: another valid order
of steps, an unneeded true step or swapped operands of a sum are right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from glore_jax.tasks.arithmetic.quantities import SYMBOL, World, apply_symbol, numbers_of

_STEP = re.compile(r"(\w+) = (\w+) ([+\-*/]) (\w+): <<(\d+)([+\-*/])(\d+)=(\d+)>> (\w+) (\d+)")
_STATED = re.compile(r"(\w+) (\d+)")
_ANSWER = re.compile(r"#### (\d+)")


def fault(world: World, line: str) -> str | None:
    """What is wrong with one step, or None.

    Returns:
      `unreadable`, `wrong quantity` (a label the problem does not define, one that is given and not
      computed, or two labels), `wrong operand` (a source, number or operation other than the statement's),
      `wrong computation`, `wrong answer` (of the closing line), or None for a true step.
    """
    table = world.by_label()
    answer = _ANSWER.fullmatch(line)
    if answer:
        return None if int(answer[1]) == table[world.target].value else "wrong answer"
    stated = _STATED.fullmatch(line)
    if stated:
        quantity = table.get(stated[1])
        if quantity is None:
            return "wrong quantity"
        return None if int(stated[2]) == quantity.value else "wrong operand"
    match = _STEP.fullmatch(line)
    if not match:
        return "unreadable"
    label, first, spoken, second, _, symbol, _, _, again, _ = match.groups()
    a, b, result, repeated = (int(match[i]) for i in (5, 7, 8, 10))
    quantity = table.get(label)
    if quantity is None or quantity.kind == "given" or again != label:
        return "wrong quantity"
    relation = [*quantity.operands, *([] if quantity.constant is None else [str(quantity.constant)])]
    commutes = SYMBOL[quantity.kind] in "+*"
    named = [first, second] == relation or ((commutes or quantity.kind == "difference") and [second, first] == relation)
    expected = numbers_of(quantity, table)
    counted = (a, b) == expected or (commutes and (b, a) == expected)
    if not (named and counted and spoken == symbol == SYMBOL[quantity.kind]):
        return "wrong operand"
    if apply_symbol(symbol, a, b) != result or result != repeated:
        return "wrong computation"
    return None


def first_false_step(facts: str, steps: Sequence[str]) -> int:
    """Index of the first false step of a solution, or -1 where every step is true.

    Args:
      facts: `Problem.facts`.
      steps: the solution's lines, the answer line included.
    """
    world = World.from_json(facts)
    return next((i for i, line in enumerate(steps) if fault(world, line) is not None), -1)
