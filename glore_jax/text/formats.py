"""What each model reads and writes, and where a step ends.

    student   question \\n | step \\n step \\n ... #### answer \\n <eos>
    value     question \\n | step \\n step \\n ...          a value is read at every step's \\n
    refiner   question \\n [DRAFT] step \\n ... [REWRITE] | step \\n ... <eos>
              with [BAD] in front of the first wrong step (local) or a value mark after each step

The bar separates what is given from what is learnt. Step ends are token positions from here on:
they are counted once, on ids, and never searched for in decoded text again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from glore_jax import answers, final_answers
from glore_jax.text.tokenizers import BAD, DRAFT, NUM_VALUE_MARKS, REWRITE, VALUE_MARKS, Tokenizer


def split_steps(solution: str) -> list[str]:
    """The steps of a solution text: its lines that are not blank, the answer line included.

    >>> split_steps("Ben = Ann + 3: <<7+3=10>> Ben 10\\n\\n#### 10\\n")
    ['Ben = Ann + 3: <<7+3=10>> Ben 10', '#### 10']
    """
    return [line.strip() for line in solution.splitlines() if line.strip()]


def step_ends(tokenizer: Tokenizer, tokens: Sequence[int]) -> tuple[int, ...]:
    """For each step of a token sequence, the number of tokens up to and including its last.

    A step ends with a token that ends a line; a blank line counts to the step after it, and a last line that
    was cut off ends with its last token. The end token and padding belong to no step.
    """
    ends: list[int] = []
    unfinished = 0  # where the step under way ends so far; 0 before its first token
    for i, token in enumerate(tokens, 1):
        if token in tokenizer.line_ends:
            if unfinished or token in tokenizer.text_line_ends:
                ends.append(i)
            unfinished = 0
        elif token not in (tokenizer.eos, tokenizer.pad):
            unfinished = i
    if unfinished:
        ends.append(unfinished)
    return tuple(ends)


def steps_text(tokenizer: Tokenizer, tokens: Sequence[int], ends: Sequence[int]) -> str:
    """The decoded steps, one line each: as many lines as there are step ends."""
    lines = [tokenizer.decode(tokens[a:b]) for a, b in itertools.pairwise((0, *ends))]
    return "\n".join(" ".join(line.split()) for line in lines)


def encode_prompt(tokenizer: Tokenizer, question: str) -> list[int]:
    """What the student is given: the question on a line, or as the tokenizer's chat template has it."""
    return [*tokenizer.opening, *tokenizer.encode(question), *tokenizer.closing]


def encode_solution(tokenizer: Tokenizer, steps: Sequence[str]) -> tuple[list[int], tuple[int, ...]]:
    """Tokens of a solution, end token last, and its step ends."""
    tokens: list[int] = []
    ends: list[int] = []
    for step in steps:
        tokens += [*tokenizer.encode(step), tokenizer.step_end]
        ends.append(len(tokens))
    return [*tokens, tokenizer.eos], tuple(ends)


def value_mark(tokenizer: Tokenizer, value: float) -> tuple[int, ...]:
    """The tokens that stand for a step value in [0, 1] (ten bins)."""
    return tokenizer.marks[VALUE_MARKS[min(int(value * NUM_VALUE_MARKS), NUM_VALUE_MARKS - 1)]]


def encode_refiner_source(
    tokenizer: Tokenizer,
    question: str,
    draft_tokens: Sequence[int],
    draft_step_ends: Sequence[int],
    error: int = -1,
    values: Sequence[float] | None = None,
) -> list[int]:
    """What a refiner is given: question, draft and critique (paper section 3.3).

    Args:
      error: index of the first wrong step, marked with [BAD] in front of it; -1 for no mark.
      values: one value a step for the value-conditioned refiner, each written after its step.
    """
    source = [*encode_prompt(tokenizer, question), *tokenizer.marks[DRAFT]]
    start = 0
    for i, end in enumerate(draft_step_ends):
        if i == error:
            source += tokenizer.marks[BAD]
        source += draft_tokens[start:end]
        if values is not None:
            source += value_mark(tokenizer, values[i])
        start = end
    return [*source, *tokenizer.marks[REWRITE]]


def is_right(text: str, answer: str) -> bool:
    """Whether a solution text ends with the right final answer, which says how it is compared (`final_answers.py`)."""
    return final_answers.equal(answers.final_answer(text), answer)
