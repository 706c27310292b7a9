"""The user's own problems: JSON lines with `question`, `answer` and, where known, `solution`.

Answers are numbers, or LaTeX where `task.answers` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glore_jax import answers, final_answers
from glore_jax.errors import InputError
from glore_jax.records import Problem
from glore_jax.tasks.rows import lines
from glore_jax.tasks.splits import check_apart, named, same_question, tenth

_KEYS = {"question", "answer", "solution"}


def read(path: str | Path, kind: str = "number") -> list[Problem]:
    """Problems of a file, ids `line-1`, `line-2`, ...; `kind` is that of their answers, of `final_answers.KINDS`.

    Raises:
      InputError: with file and line: not JSON, a key missing, unknown or of another type, an empty or
        duplicate question, an answer that should be a number and has none, or no problem at all.
    """
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, row in objects(path):
        problem = _problem(f"{path}, line {number}", number, row, kind)
        key = same_question(problem.question)
        if key in seen:
            raise InputError(f"{path}, line {number}: the question of line {seen[key]} again; remove one")
        seen[key] = number
        problems.append(problem)
    if not problems:
        raise InputError(f'{path}: no problems; expected lines such as {{"question": "...", "answer": "12"}}')
    return problems


def objects(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and JSON objects of the lines that are not blank.

    Raises:
      InputError: with file and line: not to be read, not JSON, not an object.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a UTF-8 JSONL file of problems") from error
    yield from lines(path, text, "question and answer")


def _problem(where: str, number: int, row: dict[str, Any], kind: str) -> Problem:
    if unknown := sorted(set(row) - _KEYS):
        raise InputError(f"{where}: unknown key {unknown[0]!r}; expected question, answer and optionally solution")
    for key in ("question", "answer"):
        if not str(row.get(key, "")).strip():
            raise InputError(f"{where}: {key!r} is missing or empty")
    if isinstance(row["answer"], bool) or not isinstance(row["answer"], str | int | float):
        raise InputError(f"{where}: the answer must be text or a number, found {row['answer']!r}")
    if not isinstance(row["question"], str) or not isinstance(row.get("solution", ""), str):
        raise InputError(f"{where}: question and solution must be text")
    answer = answers.final_answer(str(row["answer"])) or str(row["answer"])
    if kind == "number" and answers.parse_number(answer) is None:
        raise InputError(
            f"{where}: the answer {answer!r} holds no number; answers are compared as numbers, unless with "
            "--config.task.answers=latex"
        )
    solution = row.get("solution", "")
    right = final_answers.written(answer.strip(), kind)
    if solution and not final_answers.equal(answers.final_answer(solution), right):
        raise InputError(f"{where}: the solution must end with a line '{answers.MARKER} {answer}', the answer")
    return Problem(f"line-{number}", row["question"].strip(), right, solution)


def load(task: Any) -> dict[str, list[Problem]]:
    """Splits of `task.train`, `task.dev` and `task.test` (paths).

    Where dev or test is "", a tenth of train each is cut off by the hash of the question.
    """
    if not task.train:
        raise InputError("task.train is empty; give your problems with --config.task.train=problems.jsonl")
    final_answers.check(task.answers)
    splits = {"train": read(task.train, task.answers), "dev": [], "test": []}
    for place, name in enumerate(("dev", "test")):
        if getattr(task, name):
            splits[name] = read(getattr(task, name), task.answers)
        else:
            cut = {p.id for p in splits["train"] if tenth(p.question) == place}
            splits[name] = [p for p in splits["train"] if p.id in cut]
            splits["train"] = [p for p in splits["train"] if p.id not in cut]
    check_apart(splits)
    for name, rows in splits.items():
        if not rows:
            raise InputError(f"task.{name} holds no problem; give more problems, or a file for --config.task.{name}")
    return {name: named(name, rows) for name, rows in splits.items()}
