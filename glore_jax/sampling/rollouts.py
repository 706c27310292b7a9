"""Verifying traces of every prefix of a draft (paper section 3.2).

A draft's K x (L - 1) rollouts share its one prefill: each attends to the draft up to its own branch
point and writes a suffix of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax

from glore_jax.records import Problem, Rollout, Solution
from glore_jax.sampling.engine import Engine, Request
from glore_jax.sampling.solutions import Advance
from glore_jax.text import formats
from glore_jax.text.tokenizers import Tokenizer


def verifying_traces(
    engine: Engine,
    tokenizer: Tokenizer,
    problems: Mapping[str, Problem],
    traces: Sequence[Solution],
    count: int,
    temperature: float,
    key: jax.Array,
    advance: Advance = lambda requests, tokens: None,
    prefixes: Mapping[str, Sequence[int]] | None = None,
    first: int = 0,
) -> list[Rollout]:
    """`count` rollouts from each prefix P_1 .. P_(L-1) of every trace, or from those of its `prefixes`.

    P_0 needs none (the student's other traces of the question are its rollouts), nor does P_L (the
    trace is over). Prefix and rollout together are as long as a solution may be, where the trace itself is
    no longer. Rollout k of prefix i of a trace is the same whatever else is sampled with it.

    Args:
      prefixes: i of the P_i, by trace id; None: all.
      first: the number of the first rollout; a prefix that has some already takes the next ones.
    """
    most = engine.settings.max_new_tokens
    sources, prompts, requests, places = [], [], [], []
    for trace in traces:
        if trace.num_steps < 2:
            continue
        prompt = formats.encode_prompt(tokenizer, problems[trace.problem_id].question)
        for i in range(1, trace.num_steps) if prefixes is None else prefixes[trace.id]:
            written = trace.step_ends[i - 1]
            left = most - written if len(trace.tokens) <= most else most
            for k in range(first, first + count):
                name = f"{trace.id}/{i}/{k}"
                requests.append(Request(name, len(sources), len(prompt) + written, temperature, left))
                places.append((trace, i, k))
        prompts.append(len(prompt))
        sources.append([*prompt, *trace.tokens[: trace.step_ends[-2]]])
    completions = engine.generate(sources, requests, key, advance, prompts)
    rollouts = []
    for (trace, i, k), completion in zip(places, completions, strict=True):
        ends = formats.step_ends(tokenizer, completion.tokens)
        text = formats.steps_text(tokenizer, completion.tokens, ends)
        right = formats.is_right(text, problems[trace.problem_id].answer)
        rollouts.append(Rollout(trace.id, i, k, completion.tokens, ends, text, right))
    return rollouts
