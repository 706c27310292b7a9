"""Step labels that are not 0 or 1: how many of a prefix's rollouts are right, or by how much a step lowers that.

The paper's label approximates the optimal policy: one right rollout makes a prefix right. These are the student's own
value of a prefix (as Math-Shepherd's soft estimation) and its change from step to step.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

from glore_jax.errors import InputError
from glore_jax.method.labels import consistent
from glore_jax.records import Rollout, Solution

TARGETS = ("any", "share", "ratio")


def check_target(target: str) -> None:
    """InputError where `sorm.target` is none of `TARGETS`."""
    if target not in TARGETS:
        raise InputError(f"sorm.target={target!r}: expected one of {', '.join(TARGETS)}")


def shares(trace: Solution, rollouts: Sequence[Rollout], reading: str, propagation: bool) -> list[float]:
    """For each of P_1..P_L the share of its verifying traces that count: its value under the student (soft labels).

    A right trace is itself a verifying trace of each of its prefixes. With propagation a prefix is worth no less than
    what it leads to.

    Args:
      rollouts: those of this trace.
      reading: of `consistent`.
    """
    steps = trace.steps
    found: list[list[bool]] = [[] for _ in steps]
    for i in range(1, trace.num_steps):
        if trace.right:
            found[i - 1].append(consistent(steps[:i], steps[i:], reading))
    for rollout in rollouts:
        i = rollout.prefix
        found[i - 1].append(rollout.right and consistent(steps[:i], rollout.steps, reading))
    found[-1] = [trace.right]
    out = [sum(outcomes) / len(outcomes) if outcomes else 0.0 for outcomes in found]
    if propagation:
        out = [max(out[i:]) for i in range(len(out))]
    return out


def ratios(values: Sequence[float], start: float) -> list[float]:
    """By how much each step lowers the value of what precedes it, from 1 (not at all) to 0 (relative labels).

    Args:
      values: of P_1..P_L, such as `shares`.
      start: value of P_0, the share of the question's traces that are right.

    >>> ratios([0.5, 0.25, 0.5, 0.0, 0.0], start=1.0)
    [0.5, 0.5, 1.0, 0.0, 0.0]
    """
    return [min(b / a, 1.0) if a else float(b > 0) for a, b in itertools.pairwise([start, *values])]


def targets(
    target: str,
    traces: Sequence[Solution],
    rollouts: Mapping[str, Sequence[Rollout]],
    samples: Sequence[Solution],
    reading: str,
    propagation: bool,
) -> list[list[float]]:
    """What the SORM learns at each step of each trace in the place of a label of 0 or 1.

    Args:
      target: `share` or `ratio`.
      rollouts: by trace id.
      samples: all traces of the student, of which each question's share of right ones is taken.
      reading, propagation: as for the labels.
    """
    values = [shares(trace, rollouts.get(trace.id, ()), reading, propagation) for trace in traces]
    if target == "share":
        return values
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        outcomes[sample.problem_id].append(sample.right)
    starts = [sum(outcomes[trace.problem_id]) / len(outcomes[trace.problem_id]) for trace in traces]
    return [ratios(row, start) for row, start in zip(values, starts, strict=True)]
