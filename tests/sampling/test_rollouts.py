"""Verifying traces: one for each prefix and number, each a sample of that prefix alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny

from glore_jax.records import Problem, Rollout, Solution
from glore_jax.sampling import solutions
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.journal import Journal
from glore_jax.sampling.requests import Completion, Request, Source
from glore_jax.sampling.rollouts import Rollouts
from glore_jax.text import formats, tokenizers
from glore_jax.text.tokenizers import Tokenizer

KEY = jax.random.key(3)
PROBLEMS = {
    "p": Problem("p", "Ann has 3 nuts", "5"),
    "q": Problem("q", "Bob", "7"),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizers.train(["Ann has 3 nuts", "Bob: <<1+2=3>>3", "#### 3"] * 50, 330)


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer) -> Engine:
    model, params = tiny.random_decoder(tokenizer.vocab_size)
    settings = tiny.sampling(slots=8, buckets=(64,), max_new_tokens=40)
    return Engine(model, params, settings, tokenizer.eos, tokenizer.pad)


def make_trace(tokenizer: Tokenizer, name: str, problem: str, steps: list[str]) -> Solution:
    tokens, ends = formats.encode_solution(tokenizer, steps)
    return Solution(name, problem, tuple(tokens), ends, "\n".join(steps), False)


def make_traces(tokenizer: Tokenizer) -> list[Solution]:
    return [
        make_trace(tokenizer, "p/0", "p", ["Ann: <<1+2=3>>3", "Bob: <<3+1=4>>4", "#### 4"]),
        make_trace(tokenizer, "p/1", "p", ["#### 4"]),
        make_trace(tokenizer, "q/0", "q", ["Bob: <<1+2=3>>3", "#### 3"]),
    ]


def rolled_out(
    engine: Engine, tokenizer: Tokenizer, traces: Sequence[Solution], count: int, first: int = 0, **given: Any
) -> list[Rollout]:
    """`count` rollouts from each inner prefix of some traces, in order."""
    rolling = Rollouts(engine, tokenizer, PROBLEMS, 1.0, KEY, **given)
    for trace in traces:
        for prefix in range(1, trace.num_steps):
            rolling.ask(trace, prefix, range(first, first + count))
    places = {trace.id: n for n, trace in enumerate(traces)}
    return sorted(rolling, key=lambda r: (places[r.trace_id], r.prefix, r.sample))


def test_every_inner_prefix_gets_its_rollouts(tokenizer: Tokenizer, engine: Engine):
    counts: list[tuple[int, int]] = []
    made = rolled_out(engine, tokenizer, make_traces(tokenizer), 2, advance=lambda *n: counts.append(n))
    # P_1 and P_2 of the trace of three steps, P_1 of the one of two, none of the trace of a single step.
    places = [(r.trace_id, r.prefix, r.sample) for r in made]
    assert places == [("p/0", 1, 0), ("p/0", 1, 1), ("p/0", 2, 0), ("p/0", 2, 1), ("q/0", 1, 0), ("q/0", 1, 1)]
    assert sum(n for n, _ in counts) == len(made)
    assert len({r.tokens for r in made}) == len(made)


def test_a_rollout_is_a_sample_of_its_prefix_alone(tokenizer: Tokenizer, engine: Engine):
    traces = make_traces(tokenizer)
    made = rolled_out(engine, tokenizer, traces, 2)
    by_id = {t.id: t for t in traces}
    for r in made:
        trace = by_id[r.trace_id]
        prompt = formats.encode_prompt(tokenizer, PROBLEMS[trace.problem_id].question)
        source = Source([*prompt, *trace.tokens[: trace.step_ends[r.prefix - 1]]])
        own = Rollouts(engine, tokenizer, PROBLEMS, 1.0, KEY)
        (name,) = own._names(trace, r.prefix, [r.sample])
        (alone,) = engine.generate([Request(name, source, len(source.tokens), 1.0)], KEY)
        # Together with its prefix it is no longer than a solution may be.
        assert r.tokens == alone.tokens[: 40 - trace.step_ends[r.prefix - 1]]
        assert r.step_ends == formats.step_ends(tokenizer, r.tokens)
        assert len(r.steps) == len(r.step_ends)


def test_a_rollout_does_not_depend_on_the_others(tokenizer: Tokenizer, engine: Engine):
    traces = make_traces(tokenizer)
    made = {(r.trace_id, r.prefix, r.sample): r for r in rolled_out(engine, tokenizer, traces, 3)}
    fewer = rolled_out(engine, tokenizer, traces[::-1][:1], 2)
    assert [made[r.trace_id, r.prefix, r.sample] for r in fewer] == fewer


def test_some_prefixes_can_have_more_rollouts(tokenizer: Tokenizer, engine: Engine):
    """Numbered from where the others end, they are those that more rollouts of all prefixes would have been."""
    traces = make_traces(tokenizer)
    many = rolled_out(engine, tokenizer, traces, 4)
    more = rolled_out(engine, tokenizer, traces[:1], 2, first=2)
    assert more == [r for r in many if r.trace_id == "p/0" and r.sample >= 2]


def test_what_follows_a_trace_of_longer_solutions_has_all_the_room(tokenizer: Tokenizer):
    trace = make_traces(tokenizer)[0]
    model, params = tiny.random_decoder(tokenizer.vocab_size)
    settings = tiny.sampling(slots=8, buckets=(64,), max_new_tokens=len(trace.tokens) - 1)
    short = Engine(model, params, settings, tokenizer.eos, tokenizer.pad)
    made = rolled_out(short, tokenizer, [trace], 4)
    assert max(len(r.tokens) for r in made) == len(trace.tokens) - 1


def test_solutions_are_named_by_problem_and_number(tokenizer: Tokenizer, engine: Engine):
    rows = list(PROBLEMS.values())
    found = solutions.sample(engine, tokenizer, rows, 2, 1.0, KEY)
    assert [s.id for s in found] == ["p/0", "p/1", "q/0", "q/1"]
    assert [s.problem_id for s in found] == ["p", "p", "q", "q"]
    assert solutions.sample(engine, tokenizer, rows[1:], 1, 1.0, KEY) == [found[2]]
    greedy = solutions.sample(engine, tokenizer, rows, 1, 0.0, KEY)
    assert greedy == solutions.sample(engine, tokenizer, rows, 1, 0.0, jax.random.key(9))
    # The same source by way of `complete`; only the record's name is another.
    sources = [formats.encode_prompt(tokenizer, p.question) for p in rows]
    assert [s.tokens for s in solutions.complete(engine, tokenizer, rows, sources, KEY)] == [s.tokens for s in greedy]


@pytest.mark.parametrize(("answer", "right"), [("4", True), ("5", False)])
def test_a_completion_becomes_a_record(tokenizer: Tokenizer, answer: str, right: bool):
    tokens, ends = formats.encode_solution(tokenizer, ["Ann: <<1+3=4>>4", "#### 4"])
    found = solutions.to_solution(tokenizer, "p/0", Problem("p", "?", answer), Completion(tuple(tokens), "end", ()))
    assert found == Solution("p/0", "p", tuple(tokens), ends, "Ann: <<1+3=4>>4\n#### 4", right, True)
    cut = solutions.to_solution(tokenizer, "p/0", Problem("p", "?", "4"), Completion(tuple(tokens[:4]), "limit", ()))
    assert (cut.right, cut.finished, cut.num_steps) == (False, False, 1)


def test_rollouts_of_a_journal_are_not_sampled_again(tokenizer: Tokenizer, engine: Engine, tmp_path: Path):
    traces, expected, counts = make_traces(tokenizer), [], []
    for again in (False, True):
        with Journal(tmp_path) as journal:
            found = rolled_out(engine, tokenizer, traces, 2, advance=lambda *n: counts.append(n), journal=journal)
        if again:
            assert found == expected
            assert counts == [(1, 0)] * len(found)
        expected = found
        counts.clear()
