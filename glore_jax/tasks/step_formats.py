"""Step labels in the formats that trainers of step verifiers read elsewhere.

| format | a row |
| --- | --- |
| Math-Shepherd | `input`: question and steps, each with a tag at its end; `label`: with + or - for the tag; `task` |
| TRL | `prompt`: the question; `completions`: the steps; `labels`: true or false, one a step |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

STEP_TAG = "ки"  # Math-Shepherd's mark of a step's end, on which a value is read


def math_shepherd(question: str, steps: Sequence[str], labels: Sequence[int], task: str) -> dict[str, str]:
    """A row of Math-Shepherd.

    Args:
      labels: 1 or 0, one a step.
      task: where the question is from.

    >>> math_shepherd("2 and 3?", ["2+3=5", "#### 5"], [1, 0], "sums")["label"]
    '2 and 3? Step 1: 2+3=5 +\\nStep 2: #### 5 -'
    """

    def tagged(tags: Sequence[str]) -> str:
        lines = [f"Step {i}: {step} {tag}" for i, (step, tag) in enumerate(zip(steps, tags, strict=True), 1)]
        return f"{question} " + "\n".join(lines)

    signs = ["+" if label else "-" for label in labels]
    return {"input": tagged([STEP_TAG] * len(steps)), "label": tagged(signs), "task": task}


def trl(question: str, steps: Sequence[str], labels: Sequence[int]) -> dict[str, Any]:
    """A row of stepwise supervision, as TRL's PRMTrainer takes it.

    Args:
      labels: 1 or 0, one a step.
    """
    return {"prompt": question, "completions": list(steps), "labels": [bool(label) for label in labels]}
