"""The nouns that walk through the house: plain frozen dataclasses, one row of a table each.

Steps are counted from 0. A *step* is a line of a solution holding at most one intermediate result;
the closing answer line (`#### 6`) is a step too, because it can be false by itself. A *prefix*
P_i is the first i steps, so P_0 is the bare question and P_L the whole solution of L steps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with a checkable answer.

    Attributes:
      id: unique within its split, e.g. `test-17`.
      question: the text a model reads.
      answer: the right final answer, as text; between \\( and \\) one that is compared as LaTeX.
      solution: a worked solution, or "" where none is known.
      facts: what the task's oracle needs, as JSON text; "" where the task has no oracle.
    """

    id: str
    question: str
    answer: str
    solution: str = ""
    facts: str = ""


@dataclasses.dataclass(frozen=True)
class Solution:
    """A solution that a model wrote (a draft, a sample or a refinement).

    Attributes:
      id: unique within its table; names the randomness it was sampled with.
      problem_id: the problem it answers.
      tokens: what the model wrote, without the prompt, with the end token where it came.
      step_ends: for each step, the number of tokens up to and including its last one.
      text: the decoded steps, joined by line ends: exactly one line a step.
      right: whether its final answer equals the problem's.
      finished: whether it ended by itself, not at the length limit.
    """

    id: str
    problem_id: str
    tokens: tuple[int, ...]
    step_ends: tuple[int, ...]
    text: str
    right: bool
    finished: bool = True

    @property
    def num_steps(self) -> int:
        return len(self.step_ends)

    @property
    def steps(self) -> list[str]:
        return self.text.split("\n") if self.step_ends else []


@dataclasses.dataclass(frozen=True)
class Rollout:
    """A verifying trace T_k: the student's own completion of a prefix of one of its traces.

    Attributes:
      trace_id: the trace whose prefix is continued.
      prefix: i, the number of steps of the trace that are kept.
      sample: k, the number of the rollout at this prefix.
      tokens, step_ends, text: of the continuation alone, counted from its own start.
      right: whether the final answer is right.
    """

    trace_id: str
    prefix: int
    sample: int
    tokens: tuple[int, ...]
    step_ends: tuple[int, ...]
    text: str
    right: bool

    @property
    def steps(self) -> list[str]:
        return self.text.split("\n") if self.step_ends else []


@dataclasses.dataclass(frozen=True)
class StepLabels:
    """Labels of the prefixes P_1..P_L of one trace.

    Attributes:
      trace_id: the labelled trace.
      labels: for each step, 1 (positive), 0 (negative) or -1 (no label: dropped by balancing).
    """

    trace_id: str
    labels: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class RefinementPair:
    """One training example of a refiner: rewrite `draft` into `target`.

    Attributes:
      error: the first wrong step E of the draft, 0-based; -1 where none is shown (global).
      shared: how many leading steps draft and target have in common (local pairs).
    """

    problem_id: str
    draft_tokens: tuple[int, ...]
    draft_step_ends: tuple[int, ...]
    target_tokens: tuple[int, ...]
    error: int = -1
    shared: int = 0


@dataclasses.dataclass(frozen=True)
class Judged:
    """A solution that somebody else wrote, with what its publisher says about it.

    Attributes:
      id: unique within its file.
      steps: as published, one text each; none is blank.
      first_false: the first false step, -1 where every step is true, None where nobody judged that.
      labels: for each step 1 (true), 0 (false) or -1 (not judged); () where the steps were not judged singly.
      right: whether the final answer is right, None where that is not known.
      generator: the model that wrote it, subset: the part of the data set; "" where it is not said.
      answer: the right final answer to the question, "" where it is not said.
    """

    id: str
    question: str
    steps: tuple[str, ...]
    first_false: int | None = None
    labels: tuple[int, ...] = ()
    right: bool | None = None
    generator: str = ""
    subset: str = ""
    answer: str = ""


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a value model says about one solution.

    Attributes:
      id: of the solution.
      values: entry i is the value of the prefix that ends with step i, a probability.
      first_error: the first step under the threshold, -1 where none is.
      final_value: the last of `values`.
    """

    id: str
    values: tuple[float, ...]
    first_error: int
    final_value: float


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that change when any part of a JSON-like value changes."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A solution with everything the evaluation needs to know about it.

    Attributes:
      first_false: the oracle's first false step, -1 where every step is true, None without an oracle.
      values: for each value model that scored it (of `orm`, `orm_balanced`, `sorm`) one probability a step:
        entry i is the value of the prefix that ends with step i; the last is the final value.
    """

    solution: Solution
    first_false: int | None
    values: dict[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem walked through the whole system.

    Attributes:
      located: SORM's first step under the dev-tuned threshold, -1 where it finds none.
      sft: greedy solution of the supervised student, before expert iteration; None on dev, where nothing asks for it.
      draft: greedy solution of the student.
      samples: student samples at the paper's temperature, for best of three, majority and pass@k.
      refinements: greedy rewrites of the draft by refiner: `global`, `local`, and, where they were
        made (not on dev), `local_oracle` (first wrong step told by the oracle) and `value_conditioned`.
    """

    problem: Problem
    located: int
    sft: Candidate | None
    draft: Candidate
    samples: tuple[Candidate, ...]
    refinements: dict[str, Candidate]
