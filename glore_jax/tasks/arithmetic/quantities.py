"""The world of a problem: quantities, each given outright or computed from others.

A quantity is known by its label, the name of the person who has it; its definition is an operation
on other quantities and constants. Numbers that are stated have one digit, results go up to 3999.
"""

from __future__ import annotations

import dataclasses
import json

NAMES = (
    "Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jack", "Kim", "Leo",
    "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Vera", "Will", "Yara", "Zoe", "Alma",
)  # fmt: skip
THINGS = (
    "apples", "books", "cards", "coins", "eggs", "kites", "lemons", "marbles",
    "nuts", "pears", "pens", "plums", "shells", "stamps", "tickets", "toys",
)  # fmt: skip
SYMBOL = {
    "more": "+", "fewer": "-", "times": "*", "half": "/", "sum": "+", "difference": "-",
    "left": "-", "cost": "*", "total": "+",
}  # fmt: skip
MAX_VALUE = 3999


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One quantity of a problem.

    Attributes:
      label: how solutions name it: a person, different for each quantity, or `Total`.
      thing: what is counted ("" for a total).
      kind: `given`, or the operation that defines it (a key of SYMBOL).
      operands: labels of the quantities it is computed from (none, one or two).
      constant: the number in its statement (a given's value, how many more, ...), or None.
      value: its true value.
    """

    label: str
    thing: str
    kind: str
    operands: tuple[str, ...]
    constant: int | None
    value: int


@dataclasses.dataclass(frozen=True)
class World:
    """The quantities of a problem in an order in which they can be computed, and the one asked for."""

    quantities: tuple[Quantity, ...]
    target: str

    def by_label(self) -> dict[str, Quantity]:
        return {q.label: q for q in self.quantities}

    def needed(self) -> list[str]:
        """Labels of the computed quantities that the target depends on, itself included."""
        table, seen, stack = self.by_label(), set(), [self.target]
        while stack:
            label = stack.pop()
            if label not in seen:
                seen.add(label)
                stack.extend(table[label].operands)
        return [q.label for q in self.quantities if q.label in seen and q.kind != "given"]

    def to_json(self) -> str:
        return json.dumps({"target": self.target, "quantities": [dataclasses.astuple(q) for q in self.quantities]})

    @staticmethod
    def from_json(text: str) -> World:
        raw = json.loads(text)
        rows = tuple(
            Quantity(label, thing, kind, tuple(operands), constant, value)
            for label, thing, kind, operands, constant, value in raw["quantities"]
        )
        return World(rows, raw["target"])


def numbers_of(quantity: Quantity, table: dict[str, Quantity]) -> tuple[int, int]:
    """The two numbers of a computed quantity's equation, in the order the gold solution writes them."""
    values = [table[label].value for label in quantity.operands]
    if quantity.constant is not None:
        values.append(quantity.constant)
    return values[0], values[1]


def apply_symbol(symbol: str, a: int, b: int) -> int | None:
    """a ∘ b in whole numbers; None where a division leaves a remainder."""
    if symbol == "/":
        return a // b if b and a % b == 0 else None
    return {"+": a + b, "-": a - b, "*": a * b}[symbol]


def parts_of(number: int) -> tuple[int, int]:
    """Tens and ones, as a product is worked out by parts.

    >>> parts_of(124)
    (120, 4)
    """
    return number - number % 10, number % 10
