"""Judges any solution text against the facts of its problem, exactly.

It judges what a step says, not whether it equals the generator's own solution: another valid order
of steps, an unneeded true step or swapped operands of a sum are right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from glore_jax.tasks.arithmetic.quantities import SYMBOL, Quantity, World, apply_symbol, numbers_of, parts_of

_STEP = re.compile(
    r"(?P<label>\w+) = (?P<first>\w+) (?P<spoken>[+\-*/]) (?P<second>\w+):(?: (?P<whole>\d+):)? "
    r"<<(?P<a>\d+)(?P<symbol>[+\-*/])(?P<b>\d+)=(?P<result>\d+)>>(?: (?P<again>\w+) (?P<repeated>\d+))?"
)
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
    said = match.groupdict()
    a, symbol, b, result = int(said["a"]), said["symbol"], int(said["b"]), int(said["result"])
    quantity = table.get(said["label"])
    if quantity is None or quantity.kind == "given" or said["again"] not in (said["label"], None):
        return "wrong quantity"
    names, relation = [said["first"], said["second"]], [*quantity.operands]
    if quantity.constant is not None:
        relation.append(str(quantity.constant))
    any_order = SYMBOL[quantity.kind] in "+*" or quantity.kind == "difference"
    named = names == relation or (any_order and names[::-1] == relation)
    if not (named and said["spoken"] == SYMBOL[quantity.kind]):
        return "wrong operand"
    equations = _equations(quantity, table, ends=said["again"] is not None)
    if (a, symbol, b) not in equations and (symbol not in "+*" or (b, symbol, a) not in equations):
        return "wrong operand"
    if said["whole"] and (said["again"] or int(said["whole"]) != numbers_of(quantity, table)[0]):
        return "wrong operand"
    if apply_symbol(symbol, a, b) != result or (said["again"] and int(said["repeated"]) != result):
        return "wrong computation"
    return None


def _equations(quantity: Quantity, table: dict[str, Quantity], ends: bool) -> list[tuple[int, str, int]]:
    """The left sides that a line of `quantity` can have.

    Args:
      ends: whether the line ends with the quantity's value; the products of tens and ones do not, their sum does.
    """
    a, b = numbers_of(quantity, table)
    symbol = SYMBOL[quantity.kind]
    parts = parts_of(a) if symbol == "*" else (0, 0)
    if not ends:
        return [(part, "*", b) for part in parts] if all(parts) else []
    return [(a, symbol, b), *([(parts[0] * b, "+", parts[1] * b)] if all(parts) else [])]


def first_false_step(facts: str, steps: Sequence[str]) -> int:
    """Index of the first false step of a solution, or -1 where every step is true.

    Args:
      facts: `Problem.facts`.
      steps: the solution's lines, the answer line included.
    """
    world = World.from_json(facts)
    return next((i for i, line in enumerate(steps) if fault(world, line) is not None), -1)
