"""What models read and write: steps, their ends in tokens, prompts and critiques."""

from __future__ import annotations

import pytest
from handmade import EVEN_WEIGHTS, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import formats

TOKENIZER = tokenizer()
NL, EOS, PAD = TOKENIZER.step_end, TOKENIZER.eos, TOKENIZER.pad
A, B, C = (TOKENIZER.encode(c)[-1] for c in "123")


def test_steps_are_the_lines_that_are_not_blank():
    assert formats.split_steps("\n a: <<1+2=3>>3 \n\n\t\n#### 3\r\n") == ["a: <<1+2=3>>3", "#### 3"]
    assert formats.split_steps(" \n\n") == []


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        ([A, NL, B, C, NL, EOS], (2, 5)),
        ([A, NL, NL, B, NL, EOS], (2, 5)),  # a blank line counts to the step after it
        ([NL, A, NL, EOS], (3,)),
        ([A, NL, NL, EOS], (2,)),  # at the end it counts to none
        ([A, NL, B], (2, 3)),  # cut off
        ([A, B], (2,)),
        ([A, B, EOS], (2,)),  # ended without a line end
        ([A, NL, B, EOS, PAD, PAD], (2, 3)),
        ([A, PAD, B], (3,)),  # padding is no content, and no reason to lose count either
        ([EOS], ()),
        ([NL, NL, EOS], ()),
        ([], ()),
    ],
)
def test_step_ends_by_hand(tokens: list[int], ends: tuple[int, ...]):
    assert formats.step_ends(TOKENIZER, tokens) == ends
    assert len(formats.steps_text(TOKENIZER, tokens, ends).split("\n")) == max(len(ends), 1)


@given(st.lists(st.sampled_from([A, B, NL, NL, EOS, PAD, TOKENIZER.bad]) | st.integers(0, TOKENIZER.vocab_size - 1)))
def test_any_tokens_have_as_many_lines_as_step_ends(tokens: list[int]):
    ends = formats.step_ends(TOKENIZER, tokens)
    assert list(ends) == sorted(set(ends))
    assert all(0 < end <= len(tokens) for end in ends)
    assert all(tokens[end - 1] == NL for end in ends[:-1])
    text = formats.steps_text(TOKENIZER, tokens, ends)
    assert text.count("\n") == max(len(ends) - 1, 0)


@given(st.lists(st.sampled_from([A, B, NL]), min_size=1), st.data())
def test_cutting_a_solution_keeps_the_ends_before_the_cut(tokens: list[int], data: st.DataObject):
    cut = data.draw(st.integers(0, len(tokens)))
    whole, part = formats.step_ends(TOKENIZER, tokens), formats.step_ends(TOKENIZER, tokens[:cut])
    before = tuple(end for end in whole if end <= cut)
    assert part[: len(before)] == before
    assert len(part) - len(before) in (0, 1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_step_ends_land_where_the_steps_were_encoded(index: int):
    steps = make_problem(1, "train", index, EVEN_WEIGHTS).solution.split("\n")
    tokens, ends = formats.encode_solution(TOKENIZER, steps)
    assert tokens[-1] == EOS
    assert len(ends) == len(steps)
    assert formats.step_ends(TOKENIZER, tokens) == ends
    assert formats.steps_text(TOKENIZER, tokens, ends) == "\n".join(steps)
    for step, start, end in zip(steps, (0, *ends), ends, strict=False):
        assert tokens[start:end] == [*TOKENIZER.encode(step), NL]


def test_a_prompt_is_the_question_and_a_line_end():
    question = "Ann has 12 nuts."
    assert formats.encode_prompt(TOKENIZER, question) == [*TOKENIZER.encode(question), NL]


@pytest.mark.parametrize(("value", "mark"), [(0.0, 0), (0.09, 0), (0.1, 1), (0.55, 5), (0.99, 9), (1.0, 9)])
def test_values_fall_into_ten_marks(value: float, mark: int):
    assert formats.value_mark(TOKENIZER, value) == (TOKENIZER.mark(f"[V{mark}]"),)


DRAFT, DRAFT_ENDS = [A, NL, B, B, NL, C, NL, EOS], (2, 5, 7)
QUESTION = TOKENIZER.encode("Q")


def source(**critique) -> list[int]:
    return formats.encode_refiner_source(TOKENIZER, "Q", DRAFT, DRAFT_ENDS, **critique)


def test_a_global_source_holds_question_and_draft_alone():
    expected = [*QUESTION, NL, TOKENIZER.draft, A, NL, B, B, NL, C, NL, TOKENIZER.rewrite]
    assert source() == expected


@pytest.mark.parametrize("error", [0, 1, 2])
def test_a_local_source_has_bad_in_front_of_the_wrong_step(error: int):
    starts = (0, 2, 5)
    marked = [*DRAFT[: starts[error]], TOKENIZER.bad, *DRAFT[starts[error] : -1]]
    assert source(error=error) == [*QUESTION, NL, TOKENIZER.draft, *marked, TOKENIZER.rewrite]


def test_a_value_conditioned_source_has_a_mark_after_each_step():
    nine, five, zero = (TOKENIZER.value_marks[i] for i in (9, 5, 0))
    marked = [A, NL, nine, B, B, NL, five, C, NL, zero]
    assert source(values=(0.95, 0.5, 0.01)) == [*QUESTION, NL, TOKENIZER.draft, *marked, TOKENIZER.rewrite]


def test_a_draft_without_steps_can_be_refined_too():
    empty = formats.encode_refiner_source(TOKENIZER, "Q", [EOS], ())
    assert empty == [*QUESTION, NL, TOKENIZER.draft, TOKENIZER.rewrite]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(-1, 8))
def test_taking_the_critique_out_leaves_the_draft(index: int, error: int):
    problem = make_problem(1, "train", index, EVEN_WEIGHTS)
    tokens, ends = formats.encode_solution(TOKENIZER, problem.solution.split("\n"))
    written = formats.encode_refiner_source(TOKENIZER, problem.question, tokens, ends, error, [0.5] * len(ends))
    assert written.count(TOKENIZER.bad) == int(0 <= error < len(ends))
    marks = {TOKENIZER.bad, *TOKENIZER.value_marks}
    inside = written[written.index(TOKENIZER.draft) + 1 : -1]
    assert [t for t in inside if t not in marks] == tokens[:-1]


def test_right_means_the_stated_answer_equals_the_expected_one():
    assert formats.is_right("a: <<1+2=3>>3\n#### 3", "3")
    assert not formats.is_right("a: <<1+2=3>>3\n#### 13", "3")
    assert not formats.is_right("a: <<1+2=3>>3", "3")
    assert not formats.is_right("#### 4\na: <<1+2=3>>3", "3")
