"""What is counted on a test problem before any solution is looked at."""

from __future__ import annotations

import dataclasses

import pytest

from glore_jax.evaluation.runs import num_gold_steps
from glore_jax.records import Case, Problem


@pytest.mark.parametrize(
    ("solution", "steps"),
    [
        # The embedded task annotates what it computes; a given's line computes nothing.
        ("Ann 7\nBen = Ann + 3: <<7+3=10>>10\n#### 10", 1),
        ("Ann 7\nBen = Ann + 3: <<7+3=10>>10\nCara = 4\nDan = Ben * Cara: <<10*4=40>>40\n#### 40", 2),
        # GSM8K annotates too, within sentences.
        ("She sold 48/2 = <<48/2=24>>24 clips.\nThat is 48+24 = <<48+24=72>>72 in all.\n#### 72", 2),
        # Where nothing is annotated each line is a step, blank ones and the answer not.
        ("She sold half of 48, which is 24.\n\n  That is 72 in all.  \n#### 72", 2),
        ("#### 72", 0),
        ("", 0),
    ],
)
def test_gold_steps_are_those_that_compute(case, candidate, solution: str, steps: int):
    walked: Case = case(candidate())
    problem = Problem(id="test-0", question="How many?", answer="72", solution=solution)
    assert num_gold_steps(dataclasses.replace(walked, problem=problem)) == steps
