"""What value models are trained on, and that reading their values is one plain forward pass."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import solution, tokenizer
from tiny import decoder_config

from glore_jax.method import reward_models
from glore_jax.method.reward_models import Reading
from glore_jax.models import decoder, value_head
from glore_jax.models.decoder import Decoder
from glore_jax.parallel import rows
from glore_jax.records import Problem, Solution, StepLabels
from glore_jax.text import formats

RIGHT = solution(["a: <<2+3=5>>5", "b: <<5*2=10>>10", "#### 10"], right=True, name="p/0")
WRONG = solution(["a: <<2+3=6>>6", "#### 6"], right=False, name="p/1")
EMPTY = Solution("p/2", "p", (2,), (), "", right=False)


def test_the_orm_learns_the_final_label_at_every_step():
    assert reward_models.orm_labels([RIGHT, WRONG, EMPTY]) == [
        StepLabels("p/0", (1, 1, 1)),
        StepLabels("p/1", (0, 0)),
        StepLabels("p/2", ()),
    ]


def test_balanced_traces_are_half_right_for_each_question():
    def of(problem: str, right: bool, number: int) -> Solution:
        return dataclasses.replace(RIGHT, id=f"{problem}/{number}", problem_id=problem, right=right)

    traces = [
        *(of("p", n < 3, n) for n in range(5)),  # three right, two wrong
        *(of("q", n < 1, n) for n in range(4)),  # one right, three wrong
        *(of("r", True, n) for n in range(2)),  # never wrong: nothing to compare
        of("s", False, 0),  # never right
    ]
    kept = reward_models.balanced_traces(traces)
    assert {s.id for s in kept} == {"p/0", "p/1", "p/3", "p/4", "q/0", "q/1"}
    assert len(kept) == 6
    assert reward_models.balanced_traces([]) == []


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_examples_hold_a_target_at_the_last_token_of_each_labelled_step(prefix_lm: bool):
    t = tokenizer()
    problems = {"p": Problem("p", "How many?", "10")}
    labels = [StepLabels("p/0", (1, -1, 0)), StepLabels("p/1", (-1, -1)), StepLabels("p/2", ())]
    (example,) = reward_models.examples(t, problems, [RIGHT, WRONG, EMPTY], labels, prefix_lm)  # no label, no example
    prompt = formats.encode_prompt(t, "How many?")
    assert example.tokens.tolist() == [*prompt, *RIGHT.tokens]
    first, _, third = (len(prompt) + end - 1 for end in RIGHT.step_ends)
    assert np.flatnonzero(example.weights).tolist() == [first, third]
    assert (example.targets[first], example.targets[third]) == (1.0, 0.0)
    assert all(example.tokens[i] == t.step_end for i in (first, third))
    assert example.prefix == (len(prompt) - 1 if prefix_lm else 0)


def test_soft_targets_stand_where_there_is_a_label():
    t = tokenizer()
    problems = {"p": Problem("p", "How many?", "10")}
    soft = [(0.75, 0.5, 0.25), (0.5,) * WRONG.num_steps]
    whole = [StepLabels("p/0", (1, -1, 0)), StepLabels("p/1", (-1,) * WRONG.num_steps)]
    (example,) = reward_models.examples(t, problems, [RIGHT, WRONG], whole, True, soft)
    assert example.targets[np.flatnonzero(example.weights)].tolist() == [0.75, 0.25]
    cut = dataclasses.replace(RIGHT, tokens=RIGHT.tokens[: RIGHT.step_ends[0]], step_ends=RIGHT.step_ends[:1])
    (example,) = reward_models.examples(t, problems, [cut], [StepLabels("p/0", (1,))], True, soft)
    assert example.targets[np.flatnonzero(example.weights)].tolist() == [0.75]


def test_a_trace_that_is_too_long_loses_its_last_steps_with_their_labels():
    t = tokenizer()
    problems = {"p": Problem("p", "How many?", "10")}
    prompt = len(formats.encode_prompt(t, "How many?"))
    labels = [StepLabels("p/0", (1, -1, 0)), StepLabels("p/1", (1, 0))]
    for row_length in range(prompt + len(RIGHT.tokens) + 2):
        traces, kept, gone = reward_models.truncate(t, problems, [RIGHT, WRONG], labels, row_length)
        assert gone == sum(x >= 0 for e in labels for x in e.labels) - sum(x >= 0 for e in kept for x in e.labels)
        for before, after, was, now in zip([RIGHT, WRONG], traces, labels, kept, strict=True):
            fitting = sum(end <= row_length - prompt for end in before.step_ends)
            steps = fitting or before.num_steps  # where no step fits training leaves the trace out
            assert after.steps == before.steps[:steps]
            assert after.step_ends == before.step_ends[:steps]
            assert after.tokens == before.tokens[: len(after.tokens)]
            assert now == StepLabels(was.trace_id, was.labels[:steps])
            assert after == before or prompt + len(after.tokens) <= row_length
    assert (traces, kept, gone) == ([RIGHT, WRONG], labels, 0)


@functools.cache
def model(prefix_lm: bool) -> tuple[Decoder, Any]:
    config = decoder_config(vocab_size=tokenizer().vocab_size, prefix_lm=prefix_lm)
    model = Decoder(config)
    head = value_head.init(jax.random.key(1), config.d_model)
    params = {"decoder": decoder.init(model, jax.random.key(0)), "value_head": head}
    return model, jax.tree.map(lambda x: 3.0 * x if x.ndim else x, params)  # so that values differ clearly


@functools.cache
def written() -> tuple[dict[str, Problem], tuple[Solution, ...]]:
    """Seventy solutions of all lengths, the longest first: more than one batch of scoring holds."""
    problems = {f"p{i}": Problem(f"p{i}", "How many nuts?" + " Ann has 3." * i, "10") for i in range(3)}
    lines = [*RIGHT.steps[:2], "c: <<10-3=7>>7", "d: <<7*2=14>>14"]
    found = []
    for n in range(70):
        steps = lines * 2 if n == 0 else lines[: 1 + n // 3 % 4]
        found.append(solution(steps, name=f"{n}", problem=f"p{n % 3}"))
    return problems, tuple(found)


@functools.cache
def scored(prefix_lm: bool) -> list[tuple[float, ...]]:
    return reward_models.score(*model(prefix_lm), tokenizer(), *written())


@pytest.mark.parametrize("prefix_lm", [False, True])
@pytest.mark.parametrize("n", [0, 69])
def test_scores_are_those_of_a_plain_forward_pass(n: int, prefix_lm: bool):
    lm, params = model(prefix_lm)
    problems, found = written()
    prompt = formats.encode_prompt(tokenizer(), problems[found[n].problem_id].question)
    tokens = jnp.asarray([[*prompt, *found[n].tokens]])
    length = tokens.shape[1]
    seen = np.tril(np.ones((length, length), bool))
    if prefix_lm:  # the question but its line end is read in both directions
        seen[: len(prompt) - 1, : len(prompt) - 1] = True
    positions = jnp.arange(length, dtype=jnp.int32)[None]
    hidden, _ = jax.jit(lm.apply)({"params": params["decoder"]}, tokens, positions, jnp.asarray(seen)[None])
    logits = np.asarray(hidden)[0] @ np.asarray(params["value_head"]["kernel"])
    values = 1 / (1 + np.exp(-logits - np.asarray(params["value_head"]["bias"])))
    expected = [values[len(prompt) + end - 1] for end in found[n].step_ends]
    np.testing.assert_allclose(scored(prefix_lm)[n], expected, rtol=1e-4)


def test_scores_come_in_order_one_a_step():
    _, found = written()
    assert [len(values) for values in scored(False)] == [s.num_steps for s in found]
    assert np.ptp([v for values in scored(False) for v in values]) > 0.01  # they do differ


def test_reading_the_question_both_ways_makes_a_difference():
    assert not np.allclose(scored(False)[0], scored(True)[0], rtol=1e-3)


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_the_value_of_a_prefix_does_not_depend_on_what_follows(prefix_lm: bool):
    _, found = written()
    values = scored(prefix_lm)
    for n, s in enumerate(found):
        if s.problem_id == found[0].problem_id:
            np.testing.assert_allclose(values[n], values[0][: s.num_steps], rtol=1e-4)


def test_a_solution_without_steps_has_no_values():
    problems = {"p": Problem("p", "How many?", "10")}
    empty, one = reward_models.score(*model(False), tokenizer(), problems, [EMPTY, WRONG])
    assert empty == ()
    assert len(one) == 2
    assert reward_models.score(*model(False), tokenizer(), problems, []) == []


def test_values_do_not_depend_on_the_batch_and_are_counted(monkeypatch: pytest.MonkeyPatch):
    problems, found = written()
    readings = [Reading.of(tokenizer(), problems[s.problem_id].question, s.tokens, s.step_ends) for s in found[:9]]
    monkeypatch.setattr(rows, "_CELLS", 4 * 64**2)
    done: list[int] = []
    assert len(set(map(len, (r.tokens for r in readings)))) > 1
    values = reward_models.values(*model(False), readings, done.append)
    assert len(done) > 1 and sum(done) == 9
    for some, same in zip(values, scored(False), strict=False):
        np.testing.assert_allclose(some, same, rtol=1e-4)
