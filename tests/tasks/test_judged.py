"""Judged solutions as data: which split a question is in, and what is refused before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import public_data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from glore_jax.errors import InputError
from glore_jax.records import Judged, Problem
from glore_jax.tasks import judged, splits
from glore_jax.tasks.splits import same_question

QUESTIONS = [f"What is {i} + 2?" for i in range(40)]


def row(number: int, question: str, right: bool | None = None, false: int | None = None) -> dict[str, Any]:
    verdicts = {"answer_correct": right, "first_error": false}
    return {"id": number, "question": question, "steps": ["One step.", "The last."], **verdicts}


def rows() -> list[dict[str, Any]]:
    """To each question a solution that is right and one that is wrong from its second step on."""
    found = [(q, right, -1 if right else 1) for q in QUESTIONS for right in (True, False)]
    return [row(i, q, right, false) for i, (q, right, false) in enumerate(found)]


def write(path: Path, found: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in found))
    return str(path)


def task(when: tuple[str, ...], where: tuple[str, ...]) -> ConfigDict:
    return ConfigDict({"when": when, "where": where})


def test_no_question_is_in_two_splits(tmp_path: Path):
    spaced = [row(100 + i, f"  {q.replace(' ', '  ')}\n", True) for i, q in enumerate(QUESTIONS)]
    path, other = write(tmp_path / "a.jsonl", rows()), write(tmp_path / "b.jsonl", spaced)
    found = judged.load(task((path, other), (path,)))
    questions = {
        split: {same_question(x.question) for kind in judged.KINDS for x in found[kind][split]}
        for split in judged.SPLITS
    }
    assert sum(map(len, questions.values())) == len(set.union(*questions.values())) == len(QUESTIONS)
    assert sum(len(x) for x in found["when"].values()) == 3 * len(QUESTIONS)
    assert sum(len(x) for x in found["where"].values()) == 2 * len(QUESTIONS)


def test_shares_of_the_splits():
    counts = dict.fromkeys(judged.SPLITS, 0)
    for i in range(4000):
        counts[judged.split_of(f"Question {i}")] += 1
    assert counts == {"train": pytest.approx(2000, abs=100), "dev": pytest.approx(800, abs=80),
                      "test": pytest.approx(1200, abs=90)}  # fmt: skip


def test_a_test_set_that_was_cut_by_the_hash_of_its_questions_is_in_all_splits():
    cut = [q for q in (f"Question {i}" for i in range(1000)) if splits.tenth(q) == 1]
    assert {judged.split_of(q) for q in cut} == set(judged.SPLITS)


@given(st.text(min_size=1).filter(str.strip), st.sampled_from(["", " ", "\n\t"]))
def test_white_space_moves_no_question(question: str, blank: str):
    assert judged.split_of(blank + question + blank) == judged.split_of(question)


def test_solutions_without_the_verdict_are_left_out(tmp_path: Path):
    unknown = [row(100 + i, q) for i, q in enumerate(QUESTIONS)]
    path = write(tmp_path / "a.jsonl", rows() + unknown)
    found = judged.load(task((path,), (path,)))
    for kind in judged.KINDS:
        assert sum(len(x) for x in found[kind].values()) == 2 * len(QUESTIONS)


def test_what_is_good():
    assert [judged.is_good("when", Judged("", "", ("",), right=x)) for x in (True, False, None)] == [True, False, None]
    found = [judged.is_good("where", Judged("", "", ("",), first_false=x)) for x in (-1, 0, None)]
    assert found == [True, False, None]


def test_each_question_is_a_problem_once():
    found = [Judged(str(i), q, ("x",)) for i, q in enumerate(("A  b", "C", "A b", "C "))]
    assert judged.problems("dev", found) == [Problem("dev-0", "A  b", ""), Problem("dev-1", "C", "")]


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path):
    good = write(tmp_path / "good.jsonl", rows())
    right = write(tmp_path / "right.jsonl", [row(i, q, True, 0) for i, q in enumerate(QUESTIONS)])
    copy = write(tmp_path / "copy.jsonl", rows())
    absent = str(tmp_path / "absent.jsonl")
    cases = [
        ((), (good,), r"task\.when is empty; give one file or more .* --config\.task\.when=FILE"),
        ((good,), (), r"task\.where is empty"),
        ((absent,), (good,), r"absent\.jsonl: cannot be read"),
        ((good, copy), (good,), r"copy\.jsonl: another file of task\.when has the id '0' too"),
        ((right,), (good,), r"task\.when: of 40 .* train questions have 21 right answers and 0 wrong ones; each split"),
        ((good,), (right,), r"task\.where: .* train questions have 0 solutions without an error and 21 with one"),
    ]
    for when, where, message in cases:
        with pytest.raises(InputError, match=message):
            judged.load(task(when, where))


def test_published():
    folder = public_data.folder("traces")
    when, where = (str(folder / f"{kind}.jsonl.gz") for kind in ("when", "where"))
    found = judged.load(task((when,), (where,)))
    assert {k: sum(map(len, x.values())) for k, x in found.items()} == {"when": 15754, "where": 1888}
    sizes = {split: len({same_question(x.question) for x in found["when"][split]}) for split in judged.SPLITS}
    assert sizes == {"train": 436, "dev": 175, "test": 266}
