"""How many positive labels any-of-K misses: prefixes that can be mended, and of which no rollout was.

Of a prefix that the student mends with chance p, K rollouts find nothing with chance (1 - p)^K, and the label is
negative though the right answer can be reached. How often that happens is seen in how often one rollout alone of K
mends: the estimate is Chao's for incidence data (Biometrics 43, 1987), in its form without bias,

    missed = (K - 1) / K * f1 (f1 - 1) / (2 (f2 + 1))

where f1 and f2 are the numbers of prefixes that one and two rollouts mend. It is a lower bound: prefixes of so small
a chance that hardly any rollout mends them are not seen at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from glore_jax.method import labels
from glore_jax.records import Rollout, Solution


def missed(once: int, twice: int, rollouts: int) -> float:
    """Estimated number of prefixes that can be mended, and of which no rollout was.

    Args:
      once, twice: prefixes of which one and two rollouts are right and consistent.
      rollouts: K, of each prefix.

    >>> missed(once=0, twice=3, rollouts=8), missed(once=9, twice=3, rollouts=8)
    (0.0, 7.875)
    """
    return (rollouts - 1) / rollouts * once * max(once - 1, 0) / (2 * (twice + 1))


def of(
    traces: Sequence[Solution], by_trace: Mapping[str, Sequence[Rollout]], reading: str, rollouts: int
) -> dict[str, Any]:
    """The estimate for all prefixes that were rolled out.

    Args:
      by_trace: rollouts by trace id. Of prefixes with more than K of them the first K count.
      reading: of `labels.consistent`.
      rollouts: K.

    Returns:
      `rollouts` (K), `prefixes`, `counts` (entry c: prefixes of which c rollouts are right and consistent), `missed`,
      and `share`: of the prefixes without such a rollout, how many can be mended all the same; None where all have one.
    """
    counts: Counter[int] = Counter()
    for trace in traces:
        mended: dict[int, int] = defaultdict(int)
        for rollout in by_trace.get(trace.id, ()):
            if rollout.sample < rollouts:
                mended[rollout.prefix] += rollout.right and labels.uses_prefix(trace, rollout, reading)
        counts.update(mended.values())
    none = counts[0]
    estimate = min(missed(counts[1], counts[2], rollouts), none)
    return {
        "rollouts": rollouts,
        "prefixes": sum(counts.values()),
        "counts": [counts[c] for c in range(rollouts + 1)],
        "missed": estimate,
        "share": estimate / none if none else None,
    }
