"""Which prefixes of a trace are rolled out, and how often: everywhere (the paper's), or only where it can tell.

With propagation the last prefix that any rollout mends decides all before it. So a search from the last prefix backward
may stop there: the labels are those of rolling out everywhere, because rollout k of a prefix is the same in whatever
company it is sampled; and so are the local pairs, made of the rollouts of that prefix and the next one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from glore_jax.errors import InputError
from glore_jax.method import labels
from glore_jax.records import Rollout, Solution

SEARCHES = ("all", "backward")
Skipped = Callable[[int], None]


class Roll(Protocol):
    """Samples `count` rollouts, numbered from `first`, from each of the named prefixes of every trace."""

    def __call__(
        self, traces: Sequence[Solution], count: int, prefixes: Mapping[str, Sequence[int]], first: int = 0
    ) -> list[Rollout]: ...


def check(settings: Any) -> None:
    """InputError where `labels.search` is none of `SEARCHES`, or cannot tell the labels."""
    if settings.search not in SEARCHES:
        raise InputError(f"labels.search={settings.search!r}: expected one of {', '.join(SEARCHES)}")
    if settings.search == "backward" and not settings.propagation:
        raise InputError(
            "labels.search='backward' leaves out what propagation decides; set labels.propagation=True, or search='all'"
        )


def collect(roll: Roll, traces: Sequence[Solution], settings: Any, skipped: Skipped) -> list[Rollout]:
    """All rollouts that the labels of some traces need.

    Args:
      traces: each of two steps or more.
      settings: the group `labels`: `search`, `rollouts`, `boundary_rollouts`, `consistency`.
      skipped: told of the rollouts that the search could do without.
    """
    found: dict[str, list[Rollout]] = {trace.id: [] for trace in traces}

    def add(prefixes: Mapping[str, Sequence[int]], count: int, first: int = 0) -> None:
        for rollout in roll([t for t in traces if t.id in prefixes], count, prefixes, first):
            found[rollout.trace_id].append(rollout)

    if settings.search == "all":
        add({trace.id: range(1, trace.num_steps) for trace in traces}, settings.rollouts)
    else:
        at = {trace.id: trace.num_steps - 1 for trace in traces}
        while at:
            add({name: [i] for name, i in at.items()}, settings.rollouts)
            decided = {t.id for t in traces if t.id in at and _mended(t, at[t.id], found[t.id], settings.consistency)}
            skipped(sum(at[name] - 1 for name in decided) * settings.rollouts)
            at = {name: i - 1 for name, i in at.items() if name not in decided and i > 1}
    while settings.boundary_rollouts and (prefixes := first_negatives(traces, found, settings)):
        add(prefixes, settings.boundary_rollouts, settings.rollouts)
    return [rollout for trace in traces for rollout in sorted(found[trace.id], key=lambda r: (r.prefix, r.sample))]


def _mended(trace: Solution, prefix: int, rollouts: Sequence[Rollout], reading: str) -> bool:
    """Whether any rollout from a prefix is right and consistent with it."""
    mine = [rollout for rollout in rollouts if rollout.prefix == prefix]
    return bool(labels.raw_labels(trace, mine, reading)[prefix - 1])


def first_negatives(
    traces: Sequence[Solution], rollouts: Mapping[str, Sequence[Rollout]], settings: Any
) -> dict[str, list[int]]:
    """The first negative prefix of each trace, on which its labels hang, unless it has had more rollouts."""
    found = {}
    for trace in traces:
        made = labels.propagate(labels.raw_labels(trace, rollouts[trace.id], settings.consistency))
        i = made.index(0) + 1 if 0 in made else trace.num_steps
        counts: dict[int, int] = defaultdict(int)
        for rollout in rollouts[trace.id]:
            counts[rollout.prefix] += 1
        if i < trace.num_steps and counts[i] <= settings.rollouts:
            found[trace.id] = [i]
    return found
