"""The student: supervised start, then expert iteration (paper section 3.1).

A round samples solutions of the train problems, keeps the right ones, drops those that use the same
sequence of operations, adds them to all that was kept before, and trains anew from the base model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from glore_jax.records import Problem, Solution
from glore_jax.text import formats
from glore_jax.text.tokenizers import Tokenizer
from glore_jax.training.batches import Example, language_example

# Of an annotation, or else of the text: `48/2 = <<48/2=24>>24` says its one operation twice.
_OPERATION = re.compile(r"<<([^<>=]*)=|(-?\d[\d.]*(?:\s*[+\-*/x×]\s*-?\d[\d.]*)+)\s*=(?!\s*\$?<<)")


def operations(text: str) -> tuple[str, ...]:
    """The sequence of arithmetic operations of a solution; two solutions with the same one are the same.

    >>> operations("Ben = Ann + 3: <<7+3=10>> Ben 10\\nb: 10 * 2 = 20\\n#### 20")
    ('7+3', '10*2')
    """
    return tuple("".join((a or b).split()) for a, b in _OPERATION.findall(text))


def keep_right(problems: Sequence[Problem], samples: Sequence[Solution], kept: Sequence[Solution]) -> list[Solution]:
    """D_i = R_i ∪ D_(i-1): what was kept before and the new right solutions, no two the same.

    Args:
      samples: of this round.
      kept: of the rounds before.
    """
    seen = {(p.id, operations(p.solution)) for p in problems if p.solution}
    out = list(kept)
    seen |= {(s.problem_id, operations(s.text)) for s in kept}
    for sample in samples:
        mark = (sample.problem_id, operations(sample.text))
        if sample.right and sample.finished and mark not in seen:
            seen.add(mark)
            out.append(sample)
    return out


def gold_examples(tokenizer: Tokenizer, problems: Sequence[Problem], prefix_lm: bool) -> list[Example]:
    """Supervised examples: the worked solutions that come with the problems."""
    out = []
    for problem in problems:
        if problem.solution:
            target, _ = formats.encode_solution(tokenizer, formats.split_steps(problem.solution))
            prompt = formats.encode_prompt(tokenizer, problem.question)
            out.append(language_example(prompt, target, prefix_lm, problem.id, problem.id))
    return out


def student_examples(
    tokenizer: Tokenizer, problems: Sequence[Problem], kept: Sequence[Solution], prefix_lm: bool
) -> list[Example]:
    """Examples of the student's own right solutions."""
    prompts = {p.id: formats.encode_prompt(tokenizer, p.question) for p in problems}
    return [language_example(prompts[s.problem_id], s.tokens, prefix_lm, s.id, s.problem_id) for s in kept]
