"""From problems to sampled solutions, and from completions to records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from glore_jax.records import Problem, Solution
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.journal import Journal
from glore_jax.sampling.requests import Completion, Request, Source
from glore_jax.text import formats
from glore_jax.text.tokenizers import Tokenizer

Advance = Callable[[int, int], None]


def to_solution(tokenizer: Tokenizer, name: str, problem: Problem, completion: Completion) -> Solution:
    """The record of a completion: step ends counted, text decoded, final answer checked."""
    ends = formats.step_ends(tokenizer, completion.tokens)
    text = formats.steps_text(tokenizer, completion.tokens, ends)
    return Solution(
        id=name,
        problem_id=problem.id,
        tokens=completion.tokens,
        step_ends=ends,
        text=text,
        right=formats.is_right(text, problem.answer),
        finished=completion.finished,
    )


def sample(
    engine: Engine,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    count: int,
    temperature: float,
    key: jax.Array,
    advance: Advance = lambda requests, tokens: None,
    journal: Journal | None = None,
) -> list[Solution]:
    """`count` solutions of every problem, problem by problem; temperature 0 is greedy decoding."""
    sources = [Source(formats.encode_prompt(tokenizer, p.question)) for p in problems]
    names = [(i, f"{p.id}/{k}") for i, p in enumerate(problems) for k in range(count)]
    requests = [Request(name, sources[i], len(sources[i].tokens), temperature) for i, name in names]
    completions = engine.generate(requests, key, advance, journal)
    return [to_solution(tokenizer, name, problems[i], c) for (i, name), c in zip(names, completions, strict=True)]


def complete(
    engine: Engine,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    sources: Sequence[Sequence[int]],
    key: jax.Array,
    advance: Advance = lambda requests, tokens: None,
    journal: Journal | None = None,
) -> list[Solution]:
    """One greedy solution of every problem after a source of its own (a refiner's, say)."""
    requests = [Request(p.id, Source(tokens), len(tokens)) for p, tokens in zip(problems, sources, strict=True)]
    completions = engine.generate(requests, key, advance, journal)
    return [to_solution(tokenizer, p.id, p, c) for p, c in zip(problems, completions, strict=True)]
