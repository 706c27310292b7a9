"""The user's own problems: JSON lines with `question`, `answer` and, where known, `solution`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from glore_jax import answers
from glore_jax.errors import InputError
from glore_jax.records import Problem

_KEYS = {"question", "answer", "solution"}


def read(path: str | Path) -> list[Problem]:
    """Problems of a file, ids `line-1`, `line-2`, ...

    Raises:
      InputError: with file and line: not JSON, a key missing, unknown or of another type, an empty or
        duplicate question, an answer without a number, or no problem at all.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a UTF-8 JSONL file of problems") from error
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at U+2028 within a question
        if line.strip():
            problem = _problem(f"{path}, line {number}", number, line)
            key = " ".join(problem.question.split())
            if key in seen:
                raise InputError(f"{path}, line {number}: the question of line {seen[key]} again; remove one")
            seen[key] = number
            problems.append(problem)
    if not problems:
        raise InputError(f'{path}: no problems; expected lines such as {{"question": "...", "answer": "12"}}')
    return problems


def _problem(where: str, number: int, line: str) -> Problem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error}); expected one object a line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with question and answer, found {type(row).__name__}")
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
    if answers.parse_number(answer) is None:
        raise InputError(f"{where}: the answer {answer!r} holds no number; answers are compared as numbers")
    solution = row.get("solution", "")
    if solution and not answers.equal(answers.final_answer(solution), answer):
        raise InputError(f"{where}: the solution must end with a line '{answers.MARKER} {answer}', the answer")
    return Problem(f"line-{number}", row["question"].strip(), answer.strip(), solution)


def load(task: Any) -> dict[str, list[Problem]]:
    """Splits of `task.train`, `task.dev` and `task.test` (paths).

    Where dev or test is "", a tenth of train each is cut off by the hash of the question.
    """
    if not task.train:
        raise InputError("task.train is empty; give your problems with --config.task.train=problems.jsonl")
    splits = {"train": read(task.train), "dev": [], "test": []}
    for place, name in enumerate(("dev", "test")):
        if getattr(task, name):
            splits[name] = read(getattr(task, name))
        else:
            cut = {p.id for p in splits["train"] if _residue(p.question) == place}
            splits[name] = [p for p in splits["train"] if p.id in cut]
            splits["train"] = [p for p in splits["train"] if p.id not in cut]
    questions = {name: {" ".join(p.question.split()) for p in rows} for name, rows in splits.items()}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        if shared := sorted(questions[a] & questions[b]):
            raise InputError(f"task.{a} and task.{b} share {len(shared)} questions, such as {shared[0][:80]!r}")
    for name, rows in splits.items():
        if not rows:
            raise InputError(f"task.{name} holds no problem; give more problems, or a file for --config.task.{name}")
    return {name: [Problem(f"{name}-{p.id}", *_rest(p)) for p in rows] for name, rows in splits.items()}


def _residue(question: str) -> int:
    return int(hashlib.sha256(" ".join(question.split()).encode()).hexdigest(), 16) % 10


def _rest(problem: Problem) -> tuple[str, str, str]:
    return problem.question, problem.answer, problem.solution
