"""What the evaluation reads: the test walk of one or several runs, and the measures taken on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from glore_jax.errors import InputError
from glore_jax.evaluation.statistics import Statistic, Sums
from glore_jax.records import Candidate, Case

REQUIRED_THRESHOLDS = ("gate", "rank_margin")


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished run of the pipeline, as the report reads it.

    Attributes:
      cases: the test problems, each walked through the whole system.
      thresholds: chosen on dev. `gate` (a draft is refined where the ORM's final value is below it) and
        `rank_margin` (a rewrite replaces the draft where its score is higher by more than this)
        are needed; `<model>_step`, `<model>_f1`, `<model>_final` add the `_tuned` rows.
      label_audit: SORM labels against the oracle (`sorm_label_accuracy`, `ablation`) and their positive
        rates after each post-processing step (`rates`); what is absent is not reported.
      training_curves: stage -> [{"step", "loss", ...}].
      info: `config`, `command`, `revision` and whatever else belongs under the page.
      ranker: of `rankers.RANKERS`, by which the system and the best of three choose.
    """

    cases: Sequence[Case]
    thresholds: Mapping[str, float]
    label_audit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training_curves: Mapping[str, Sequence[Mapping[str, float]]] = dataclasses.field(default_factory=dict)
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ranker: str = "orm"


@dataclasses.dataclass(frozen=True)
class Walk:
    """A case with the number, the thresholds and the ranker of the run it comes from."""

    run: int
    case: Case
    thresholds: Mapping[str, float]
    ranker: str


def walks_of(runs: Sequence[Run]) -> list[Walk]:
    """All cases of all runs; refuses runs that cannot be measured."""
    for number, run in enumerate(runs):
        if not run.cases:
            raise InputError(f"run {number}: it holds no test problems; run the test stage again with at least one")
        missing = [name for name in REQUIRED_THRESHOLDS if name not in run.thresholds]
        if missing:
            raise InputError(
                f"run {number}: the thresholds lack {', '.join(missing)}; expected {', '.join(REQUIRED_THRESHOLDS)} "
                f"as chosen on dev, found {', '.join(sorted(run.thresholds)) or 'none'}; run the tuning stage again"
            )
    return [Walk(number, case, run.thresholds, run.ranker) for number, run in enumerate(runs) for case in run.cases]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A named statistic and what its figure is over.

    Attributes:
      name: of the row in metrics.json.
      statistic: weights [R, units] -> [R].
      definition: in words, with the denominator.
      count: the numerator where the measure is a rate of countable things, else None.
      denominator: how many things it is over.
      traces: how many labelled traces a resample draws, 0 where it draws the test problems.
    """

    name: str
    statistic: Statistic
    definition: str
    count: int | None
    denominator: int
    traces: int = 0


def rate(
    name: str, pairs: Iterable[Sequence[float]] | np.ndarray, definition: str, traces: int = 0, countable: bool = True
) -> Measure:
    """A rate: each problem (or trace) adds (numerator, denominator)."""
    sums = np.array(list(pairs), dtype=float).reshape(-1, 2)
    count, denominator = sums.sum(axis=0)
    return Measure(name, Sums(sums), definition, round(count) if countable else None, round(denominator), traces)


def share(
    name: str,
    walks: Sequence[Walk],
    hit: Callable[[Walk], bool],
    definition: str,
    among: Callable[[Walk], bool] = lambda walk: True,
) -> Measure:
    """The share of problems, `among` those that qualify, for which `hit` holds."""
    pairs = [(float(hit(walk)), 1.0) if among(walk) else (0.0, 0.0) for walk in walks]
    return rate(name, pairs, definition)


def has_oracle(candidate: Candidate) -> bool:
    return candidate.first_false is not None


def num_gold_steps(case: Case) -> int:
    """Computing steps of the problem's own solution: its annotated lines, or all but the answer where none is."""
    lines = [line.strip() for line in case.problem.solution.split("\n")]
    steps = [line for line in lines if line and not line.startswith("####")]
    return len([line for line in steps if "<<" in line] or steps)
