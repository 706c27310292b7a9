"""Records built by hand, and a tokenizer small enough for tests."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from glore_jax.records import Rollout, Solution
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import formats, tokenizers
from glore_jax.text.tokenizers import OwnTokenizer

EVEN_WEIGHTS = (1.0,) * 7


@functools.cache
def tokenizer() -> OwnTokenizer:
    """Trained on 300 problems in a fraction of a second."""
    problems = [make_problem(0, "corpus", i, EVEN_WEIGHTS) for i in range(300)]
    return tokenizers.train((text for p in problems for text in (p.question, *p.solution.split("\n"))), 400)


def solution(
    lines: Sequence[str], right: bool = False, name: str = "p/0", problem: str = "p", finished: bool = True
) -> Solution:
    """A solution of these lines, with the tokens that it would have."""
    tokens, ends = formats.encode_solution(tokenizer(), lines)
    return Solution(name, problem, tuple(tokens), ends, "\n".join(lines), right, finished)


def rollout(prefix: int, lines: Sequence[str], right: bool, sample: int = 0, trace: str = "p/0") -> Rollout:
    """A verifying trace that continues the first `prefix` steps of a trace."""
    tokens, ends = formats.encode_solution(tokenizer(), lines)
    return Rollout(trace, prefix, sample, tuple(tokens), ends, "\n".join(lines), right)
