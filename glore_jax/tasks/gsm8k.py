"""GSM8K (Cobbe et al., 2021): grade-school problems with worked solutions that people wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glore_jax import answers
from glore_jax.errors import InputError
from glore_jax.records import Problem
from glore_jax.tasks import jsonl, published, steps
from glore_jax.tasks.splits import check_apart, named, tenth

_PLACE = (
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
    "/grade_school_math/data"
)


def rows(path: Path) -> Iterator[tuple[int, published.Row]]:
    """Lines of a file, each an object with a question and a worked answer that ends with `#### number`."""
    seen: dict[str, int] = {}
    for number, row in jsonl.objects(path):
        where = f"{path}, line {number}"
        question, answer = (published.text_of(row, name, where) for name in DATA_SET.columns)
        final = answers.final_answer(answer)
        if final is None or answers.parse_number(final) is None:
            raise InputError(
                f"{where}: the answer must end with '{answers.MARKER}' and a number, found {answer[-40:]!r}"
            )
        if (first := seen.setdefault(question, number)) != number:
            raise InputError(f"{where}: the question of line {first} again; remove one")
        yield number, {"question": question, "answer": answer}


DATA_SET = published.DataSet(
    name="gsm8k",
    urls={part: f"{_PLACE}/{part}.jsonl" for part in ("train", "test")},
    columns=("question", "answer"),
    rows=rows,
)


SIZES = {"train": 6726, "dev": 747, "test": 1319}  # of 7,473 and 1,319; see `load`


def problem(number: int, row: published.Row) -> Problem:
    """A row as a problem; its solution has a step a line, the answer last."""
    lines = steps.split(row["answer"])
    answer = answers.final_answer(row["answer"])
    assert answer is not None  # `rows` saw to it
    return Problem(f"line-{number}", row["question"], answer, "\n".join(lines))


def load(task: Any) -> dict[str, list[Problem]]:
    """Splits: test is the published one; dev is a tenth of the published train, by the hash of the question."""
    parts = published.read(DATA_SET, task.manual_dir, task.data_dir)
    read = {part: [problem(number, row) for number, row in found] for part, found in parts.items()}
    splits = {
        "train": [p for p in read["train"] if tenth(p.question) != 0],
        "dev": [p for p in read["train"] if tenth(p.question) == 0],
        "test": read["test"],
    }
    check_apart(splits)
    return {name: named(name, found) for name, found in splits.items()}
