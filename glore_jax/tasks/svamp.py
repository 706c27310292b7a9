"""SVAMP (Patel et al., 2021): 1,000 variations of one- and two-operation word problems, each with its equation."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from glore_jax import answers
from glore_jax.errors import InputError
from glore_jax.records import Problem
from glore_jax.tasks import published
from glore_jax.tasks.splits import check_apart, named, tenth

_OPERATIONS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


def rows(path: Path) -> Iterator[tuple[int, published.Row]]:
    """Entries of the file, a JSON list of objects."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); expected SVAMP's list of problems") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a list of problems, as SVAMP.json is")
    seen: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{where}: expected an object with {', '.join(DATA_SET.columns)}, found {entry!r:.80}")
        answer = entry.get("Answer")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise InputError(f"{where}: expected a number in the column 'Answer', found {answer!r}")
        if answers.parse_number(str(answer)) is None:
            raise InputError(f"{where}: the answer {answer!r} holds no number; answers are compared as numbers")
        row = {name: published.text_of({**entry, "Answer": str(answer)}, name, where) for name in DATA_SET.columns}
        if (first := seen.setdefault((row["Body"], row["Question"]), number)) != number:
            raise InputError(f"{where}: the question of entry {first} again; remove one")
        _worked(row["Equation"], where)
        yield number, row


DATA_SET = published.DataSet(
    name="svamp",
    urls={
        "problems": "https://raw.githubusercontent.com/arkilpatel/SVAMP/689d7ccac74b9983a2ac7cc3b264f441b99e7c53/SVAMP.json"
    },
    columns=("ID", "Body", "Question", "Equation", "Answer"),
    rows=rows,
)


SIZES = {"train": 600, "dev": 100, "test": 300}  # of 1,000; see `load`


def problem(number: int, row: published.Row) -> Problem:
    """An entry as a problem; its equation, an operation a line, is the worked solution.

    One published equation does not give the published answer (`chal-680`): that problem has no solution.
    """
    steps, value = _worked(row["Equation"], f"entry {number}")
    answer = _text(answers.parse_number(row["Answer"]) or Fraction(0))
    solution = "\n".join([*steps, f"{answers.MARKER} {answer}"]) if _text(value) == answer else ""
    return Problem(row["ID"], f"{row['Body']} {row['Question']}", answer, solution)


def _worked(equation: str, where: str) -> tuple[list[str], Fraction]:
    """The operations of an equation as steps, the innermost first, and its value.

    >>> _worked("( 6.0 - ( 3.0 + 2.0 ) )", "entry 1")
    (['3+2 = <<3+2=5>>5', '6-5 = <<6-5=1>>1'], Fraction(1, 1))
    """
    steps: list[str] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return Fraction(str(node.value))
        if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATIONS:
            raise ValueError("it has more than numbers, +, -, *, / and brackets")
        sign, operation = _OPERATIONS[type(node.op)]
        left, right = value(node.left), value(node.right)
        result = operation(left, right)
        written = f"{_text(left)}{sign}{_text(right)}"
        steps.append(f"{written} = <<{written}={_text(result)}>>{_text(result)}")
        return result

    try:
        return steps, value(ast.parse(equation, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{where}: the equation {equation!r:.80} cannot be worked out ({error})") from error


def _text(number: Fraction) -> str:
    """A number as people write it: `7`, `2.5`, and `1/3` where no decimal is exact."""
    text = f"{float(number):.10g}"
    return text if Fraction(text) == number else str(number)


def load(task: Any) -> dict[str, list[Problem]]:
    """Splits by the hash of the story without its numbers: three tenths test, one tenth dev, the rest train.

    SVAMP is published without splits. Its problems are variations of a few hundred: those that tell one story with
    other numbers, or ask something else about it, stay together.
    """
    parts = published.read(DATA_SET, task.manual_dir, task.data_dir)
    splits: dict[str, list[Problem]] = {"train": [], "dev": [], "test": []}
    for number, row in parts["problems"]:
        place = tenth(story(row["Body"]))
        splits["dev" if place == 0 else "test" if place <= 3 else "train"].append(problem(number, row))
    check_apart(splits)
    return {name: named(name, found) for name, found in splits.items()}


def story(body: str) -> str:
    """What a problem tells, without its numbers.

    >>> story("Dan had $ 3 left. He spent $ 4.50")
    'dan had $ # left. he spent $ #'
    """
    return re.sub(r"\d+(?:\.\d+)?", "#", body.lower())
