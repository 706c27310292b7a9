"""Worked solutions are cut into steps of one result at most, and nothing is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import public_data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.tasks import steps


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("12 pears.", ["12 pears."]),
        ("A. B: 3*4=<<3*4=12>>12. C.", ["A. B: 3*4=<<3*4=12>>12. C."]),
        (
            "He has 2+3=<<2+3=5>>5. Mr. X has 1.5 more: 5+1.5=<<5+1.5=6.5>>6.5.",
            ["He has 2+3=<<2+3=5>>5. Mr.", "X has 1.5 more: 5+1.5=<<5+1.5=6.5>>6.5."],
        ),
        ("2*3=<<2*3=6>>6 pens, so 6*2=<<6*2=12>>12 legs", ["2*3=<<2*3=6>>6 pens,", "so 6*2=<<6*2=12>>12 legs"]),
        ("2*3=<<2*3=6>>6 pens and 6*2=<<6*2=12>>12", ["2*3=<<2*3=6>>6 pens", "and 6*2=<<6*2=12>>12"]),
        ("2*3=<<2*3=6>>6 plus 6*2=<<6*2=12>>12", ["2*3=<<2*3=6>>6", "plus 6*2=<<6*2=12>>12"]),
        ("<<1=1>><<2=2>>", ["<<1=1>>", "<<2=2>>"]),
        ("1,000+5=<<1000+5=1005>>1,005 in 2*2=<<2*2=4>>4", ["1,000+5=<<1000+5=1005>>1,005", "in 2*2=<<2*2=4>>4"]),
    ],
)
def test_a_line_is_cut_between_its_results(line: str, cut: list[str]):
    assert steps.split(line) == cut


def test_blank_lines_are_no_steps_and_the_answer_is_one():
    assert steps.split("\n a <<1+1=2>>2 \r\n\n#### 2\n") == ["a <<1+1=2>>2", "#### 2"]
    assert steps.split(" \n") == []


PARTS = st.sampled_from(["<<1+2=3>>", "<<", ">>", "3", ". ", ", ", " and ", "\n", "#### 3", "x", "=", " ", "!", "; "])


@given(st.lists(PARTS, max_size=30).map("".join))
def test_nothing_is_lost_and_no_step_has_two_results(solution: str):
    cut = steps.split(solution)
    assert "".join("".join(cut).split()) == "".join(solution.split())
    assert all(len(re.findall(r"<<[^<>]*>>", step)) <= 1 for step in cut)
    assert all(step.strip() == step for step in cut)
    assert not any("\n" in step for step in cut)


def test_the_lines_of_gsm8k_are_its_steps():
    """No line of the published solutions holds two results, so none is cut."""
    folder = public_data.folder("gsm8k")
    lines = [line for part in ("train", "test") for line in (folder / f"{part}.jsonl").read_text("utf-8").splitlines()]
    solutions = [json.loads(line)["answer"] for line in lines]
    assert len(solutions) == 8792
    assert all(steps.split(s) == [line.strip() for line in s.split("\n") if line.strip()] for s in solutions)
    found = [step for solution in solutions for step in steps.split(solution)]
    last, results = (sum(mark in step for step in found) for mark in ("####", "<<"))
    page = " ".join((Path(__file__).parents[2] / "docs" / "tasks.md").read_text("utf-8").split())
    assert (
        f"of the {len(found):,} lines {results:,} hold one annotation, none holds two, {last:,} are answer lines and "
        f"{len(found) - results - last:,} hold none" in page
    )
