"""Step labels from rollouts (paper section 3.2): raw label, consistency, propagation, balance.

The label of prefix P_i says whether the right answer can still be reached from it. It approximates
the optimal policy's value V* by rejection sampling of the student.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from glore_jax.errors import InputError
from glore_jax.records import Rollout, Solution, StepLabels

_ANNOTATED = re.compile(r"<<[^<>=]*=([^<>]*)>>")
# The dash of 10-4 is no sign: a result that is subtracted counts as used. 1,210 is one number; 5, 6 and 1,5 are two.
_NUMBER = re.compile(r"(?:(?<![\d)])(?<![\d)] )-)?(?:(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?")
READINGS = ("each", "strict", "off")


def check_reading(reading: str) -> None:
    """InputError where `labels.consistency` is none of `READINGS`."""
    if reading not in READINGS:
        raise InputError(f"labels.consistency={reading!r}: expected one of {', '.join(READINGS)}")


def intermediate_result(step: str) -> str | None:
    """R_i, the result that a step computes: of its `<<...=R>>` annotation, else its last number.

    >>> steps = "Ben = Ann + 3: <<7+3=10>> Ben 10", "so 4 of 12", "hm"
    >>> [intermediate_result(step) for step in steps]
    ['10', '12', None]
    """
    annotated = _ANNOTATED.findall(step)
    numbers = _numbers(annotated[-1] if annotated else step)
    return numbers[-1] if numbers else None


def _numbers(text: str) -> list[str]:
    """The numbers in a text, as written but without separators of thousands.

    >>> _numbers("so 1,210 - 10 = 1200.50 in 2024, 3 times")
    ['1210', '10', '1200.50', '2024', '3']
    """
    return [number.replace(",", "") for number in _NUMBER.findall(text)]


def consistent(prefix: Sequence[str], continuation: Sequence[str], reading: str = "each") -> bool:
    """Whether a verifying trace uses what its prefix computed, instead of starting afresh.

    Results are compared as whole numbers: a 5 is not found in 15.

    Args:
      prefix: steps S_1..S_i.
      continuation: the verifying trace's own steps.
      reading: `each` (the default): each R_j appears in what follows P_j, be it a later step of the
        prefix or the trace; `strict`: each of R_1..R_i appears in the trace itself, which rejects
        every chain whose early results were used up inside the prefix; `off`: anything passes.

    >>> consistent(["a: <<2+3=5>>5", "b: <<5*2=10>>10"], ["c: <<10-1=9>>9", "#### 9"])
    True
    >>> consistent(["a: <<2+3=5>>5"], ["b: <<15-1=14>>14"])
    False
    """
    if reading == "off":
        return True
    steps = [*prefix, *continuation]
    mentioned = [set(_numbers(step)) for step in steps]
    for j, step in enumerate(prefix):
        result = intermediate_result(step)
        after = j + 1 if reading == "each" else len(prefix)
        if result is not None and not any(result in numbers for numbers in mentioned[after:]):
            return False
    return True


def uses_prefix(trace: Solution, rollout: Rollout, reading: str) -> bool:
    """Whether a verifying trace is consistent with the prefix of the trace that it continues."""
    return consistent(trace.steps[: rollout.prefix], rollout.steps, reading)


def raw_labels(trace: Solution, rollouts: Sequence[Rollout], reading: str) -> list[int]:
    """Labels of P_1..P_L: 1 where any right verifying trace counts, P_L by the trace's own answer.

    A right trace is itself a verifying trace of each of its prefixes.

    Args:
      rollouts: those of this trace.
      reading: of `consistent`.
    """
    steps = trace.steps
    labels = [0] * trace.num_steps
    labels[-1] = int(trace.right)
    if trace.right:
        for i in range(1, trace.num_steps):
            labels[i - 1] = int(consistent(steps[:i], steps[i:], reading))
    for rollout in rollouts:
        i = rollout.prefix
        if rollout.right and not labels[i - 1]:
            labels[i - 1] = int(uses_prefix(trace, rollout, reading))
    return labels


def propagate(labels: Sequence[int]) -> list[int]:
    """Positive propagation: what comes before a positive prefix is positive.

    >>> propagate([0, 1, 0, 1, 0])
    [1, 1, 1, 1, 0]
    """
    last = max((i for i, label in enumerate(labels) if label == 1), default=-1)
    return [1 if i <= last else label for i, label in enumerate(labels)]


def from_first_false(first_false: int | None, steps: int) -> tuple[int, ...]:
    """Labels of a solution that somebody judged: what comes before its first false step is right, the rest wrong.

    >>> from_first_false(1, 3), from_first_false(-1, 2), from_first_false(None, 2)
    ((1, 0, 0), (1, 1), (-1, -1))
    """
    if first_false is None:
        return (-1,) * steps
    return tuple(int(first_false < 0 or i < first_false) for i in range(steps))


def balance(labels: Sequence[StepLabels], seed: int) -> list[StepLabels]:
    """Equal numbers of positive and negative labels at each prefix length; the rest become -1.

    Which labels of the larger class stay is drawn by the trace's name, so it does not depend on order.
    """
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, entry in enumerate(labels):
        for i, label in enumerate(entry.labels):
            members[i, label].append(row)
    kept = set()
    for i in {i for i, _ in members}:
        size = min(len(members[i, 0]), len(members[i, 1]))
        for label in (0, 1):
            ranked = sorted(members[i, label], key=lambda row: _rank(f"{seed}/{labels[row].trace_id}/{i}"))
            kept |= {(row, i) for row in ranked[:size]}
    return [
        StepLabels(e.trace_id, tuple(x if (row, i) in kept else -1 for i, x in enumerate(e.labels)))
        for row, e in enumerate(labels)
    ]


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def make(
    traces: Sequence[Solution], rollouts: Mapping[str, Sequence[Rollout]], reading: str, propagation: bool
) -> list[StepLabels]:
    """Labels of all traces, before balancing.

    Args:
      rollouts: by trace id; right traces need none.
      reading: of `consistent`.
      propagation: whether to apply `propagate`.
    """
    (made,) = read(traces, rollouts, (reading,)).values()
    return propagated(made) if propagation else made


def read(
    traces: Sequence[Solution],
    rollouts: Mapping[str, Sequence[Rollout]],
    readings: Sequence[str],
    seen: bool = False,
) -> dict[str, list[StepLabels]]:
    """Raw labels of all traces under each reading, in one pass over the rollouts.

    Args:
      seen: whether prefixes of wrong traces that have no rollout, as a search left them out, get no label (-1).
    """
    made: dict[str, list[StepLabels]] = {reading: [] for reading in readings}
    for trace in traces:
        mine = rollouts.get(trace.id, ())
        known: Collection[int] = range(1, trace.num_steps + 1)
        if seen and not trace.right:
            known = {trace.num_steps, *(rollout.prefix for rollout in mine)}
        for reading in readings:
            raw = enumerate(raw_labels(trace, mine, reading), 1)
            made[reading].append(StepLabels(trace.id, tuple(x if i in known else -1 for i, x in raw)))
    return made


def propagated(made: Sequence[StepLabels]) -> list[StepLabels]:
    """Labels after `propagate`."""
    return [StepLabels(entry.trace_id, tuple(propagate(entry.labels))) for entry in made]


def rates(labels: Sequence[StepLabels]) -> list[dict[str, int]]:
    """Positive labels by prefix length: rows of `prefix`, `positive`, `count` (dropped labels left out)."""
    table: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for entry in labels:
        for i, label in enumerate(entry.labels, 1):
            if label >= 0:
                table[i][0] += label
                table[i][1] += 1
    return [{"prefix": i, "positive": p, "count": n} for i, (p, n) in sorted(table.items())]


def agreement(labels: Sequence[StepLabels], first_false: Mapping[str, int]) -> list[tuple[int, int]]:
    """For each trace: how many of its labels the oracle agrees with, and how many it has.

    Args:
      first_false: the oracle's first false step of each trace, -1 for none.
    """
    out = []
    for entry in labels:
        false = first_false[entry.trace_id]
        truth = from_first_false(false, len(entry.labels))
        kept = [(x, t) for x, t in zip(entry.labels, truth, strict=True) if x >= 0]
        out.append((sum(x == t for x, t in kept), len(kept)))
    return out
