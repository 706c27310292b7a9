"""What a round of expert iteration keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from handmade import EVEN_WEIGHTS, solution, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from glore_jax.method import expert_iteration
from glore_jax.records import Problem, Solution
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import formats

A, B = "Ben = Ann + 3: <<7+3=10>> Ben 10", "Cara = Ben * 2: <<10*2=20>> Cara 20"
PROBLEMS = [Problem("p", "How many nuts?", "20"), Problem("q", "And how many eggs?", "20", f"{A}\n{B}\n#### 20")]


@pytest.mark.parametrize(
    ("text", "sequence"),
    [
        (f"{A}\n{B}\n#### 20", ("7+3", "10*2")),
        (A, ("7+3",)),  # the constant of the relation is no operation of its own
        (f"Ann 7\n{A}\n{B}\n#### 20", ("7+3", "10*2")),  # and stating a given is none
        ("Ann 7", ()),
        ("Ben = 3 + Ann: <<3+7=10>> Ben 10", ("3+7",)),
        ("Total = Ann + Ben: <<7+10=17>> Total 17", ("7+10",)),
        ("Eva = Sam - 3: <<34-3=31>> Eva 31\nIda = Eva - Ann: <<31-7=24>>24", ("34-3", "31-7")),
        ("He has 7 + 3 = 10 nuts.\nThen 10 x 2 = 20.", ("7+3", "10x2")),
        ("48/2 = <<48/2=24>>24 clips in May", ("48/2",)),  # the annotation repeats it, it is one operation
        ("$48/2=$<<48/2=24>>24 in May", ("48/2",)),
        ("2+3+4 = <<2+3+4=9>>9, 9*2 = 18", ("2+3+4", "9*2")),
        ("<<7 + 3=10>>10", ("7+3",)),
        ("10-4=6", ("10-4",)),
        ("#### 20", ()),
        ("he has 7 and 3 more", ()),
        ("", ()),
    ],
)
def test_the_sequence_of_operations(text: str, sequence: tuple[str, ...]):
    assert expert_iteration.operations(text) == sequence


def sample(lines: list[str], name: str, problem: str = "p", **more) -> Solution:
    return solution(lines, more.pop("right", True), name, problem, **more)


def test_right_finished_and_different_solutions_are_kept():
    first = sample([A, B, "#### 20"], "p/0")
    same_operations = sample(["x: <<7+3=10>>10", "y: <<10*2=20>>20", "#### 20"], "p/1")
    other_order = sample(["z: <<2*10=20>>20", "#### 20"], "p/2")
    wrong = sample([A, "#### 10"], "p/3", right=False)
    cut = sample(["z: <<19+1=20>>20", "#### 20"], "p/4", finished=False)
    kept = expert_iteration.keep_right(PROBLEMS[:1], [first, same_operations, other_order, wrong, cut], [])
    assert kept == [first, other_order]


def test_the_worked_solution_of_a_problem_is_not_learnt_twice():
    same_as_gold = sample([A, B, "#### 20"], "q/0", "q")
    same_of_another = sample([A, B, "#### 20"], "p/0", "p")
    assert expert_iteration.keep_right(PROBLEMS, [same_as_gold, same_of_another], []) == [same_of_another]


def test_rounds_accumulate():
    old, again = sample([A, B, "#### 20"], "p/0"), sample([A, B, "#### 20"], "p/7")
    new = sample(["z: <<4*5=20>>20", "#### 20"], "p/8")
    second = expert_iteration.keep_right(PROBLEMS, [again, new], [old])
    assert second == [old, new]
    assert expert_iteration.keep_right(PROBLEMS, [again, new], second) == second
    assert expert_iteration.keep_right(PROBLEMS, [], second) == second


def test_what_was_kept_is_not_changed_in_place():
    kept = [sample([A, B, "#### 20"], "p/0")]
    expert_iteration.keep_right(PROBLEMS, [sample(["z: <<4*5=20>>20", "#### 20"], "p/1")], kept)
    assert len(kept) == 1


SAMPLES = st.lists(
    st.builds(
        lambda n, problem, first, right, finished: dataclasses.replace(
            Solution("", problem, (5, 2), (1,), f"x: <<{first}+1={first + 1}>>{first + 1}", right, finished),
            id=f"{problem}/{n}",
        ),
        st.integers(0, 99), st.sampled_from("pq"), st.integers(0, 3), st.booleans(), st.booleans(),
    ),
    max_size=12,
)  # fmt: skip


@given(SAMPLES, SAMPLES)
def test_every_right_operation_sequence_is_kept_once(first: list[Solution], second: list[Solution]):
    one = expert_iteration.keep_right(PROBLEMS, first, [])
    two = expert_iteration.keep_right(PROBLEMS, second, one)
    assert two[: len(one)] == one
    marks = [(s.problem_id, expert_iteration.operations(s.text)) for s in two]
    assert len(set(marks)) == len(marks)
    fit = [s for s in first + second if s.right and s.finished]
    assert set(marks) == {(s.problem_id, expert_iteration.operations(s.text)) for s in fit}
    assert all(s in fit for s in two)


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_gold_examples_learn_the_worked_solution_after_the_question(prefix_lm: bool):
    t = tokenizer()
    (example,) = expert_iteration.gold_examples(t, PROBLEMS, prefix_lm)  # the problem without a solution gives none
    prompt = formats.encode_prompt(t, "And how many eggs?")
    target, _ = formats.encode_solution(t, [A, B, "#### 20"])
    assert example.tokens.tolist() == [*prompt, *target][:-1]
    assert example.targets.tolist() == [*prompt, *target][1:]
    assert example.weights.tolist() == [0.0] * (len(prompt) - 1) + [1.0] * len(target)
    assert example.prefix == (len(prompt) - 1 if prefix_lm else 0)


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_student_examples_learn_what_the_student_wrote(prefix_lm: bool):
    t = tokenizer()
    kept = [sample([A, B, "#### 20"], "p/0"), sample(["z: <<4*5=20>>20", "#### 20"], "q/1", "q")]
    examples = expert_iteration.student_examples(t, PROBLEMS, kept, prefix_lm)
    for example, trace, problem in zip(examples, kept, PROBLEMS, strict=True):
        prompt = formats.encode_prompt(t, problem.question)
        assert example.tokens.tolist() == [*prompt, *trace.tokens][:-1]
        assert np.sum(example.weights) == len(trace.tokens)
        assert example.targets[-1] == t.eos
        assert example.prefix == (len(prompt) - 1 if prefix_lm else 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_a_worked_solution_has_one_operation_a_computing_step(index: int):
    *steps, answer = make_problem(0, "train", index, EVEN_WEIGHTS).solution.split("\n")
    said = tuple(step.split("<<")[1].split("=")[0] for step in steps if "<<" in step)  # a given's line has none
    assert len(said) >= 2
    assert expert_iteration.operations("\n".join([*steps, answer])) == said
