"""Which answer each way of inference gives, from candidates that are already made and scored.

Section 1 of the paper's method: the ORM says when to refine (gate) and which candidate to keep (rerank; `rankers.py`
has other ways to compare them). The baselines spend the same number of candidates: the best of three samples under the
same ranker, or their majority. Whether answers are in LaTeX matters to votes alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from glore_jax import final_answers
from glore_jax.rankers import RANKERS, final_value
from glore_jax.records import Candidate, Case

REFINERS = ("global", "local")
THRESHOLDS = tuple(round(0.02 * i, 2) for i in range(1, 50))


def first_below(values: Sequence[float], threshold: float) -> int:
    """The first step whose value is under the threshold, -1 where none is.

    >>> first_below((0.9, 0.4, 0.2), 0.5), first_below((0.9, 0.5), 0.5)
    (1, -1)
    """
    return next((i for i, value in enumerate(values) if value < threshold), -1)


def best_threshold(score: Callable[[float], float], grid: Sequence[float] = THRESHOLDS) -> float:
    """The threshold of the highest score; of a plateau its middle, which generalises best.

    >>> best_threshold(lambda t: float(0.3 < t < 0.5))
    0.4
    """
    scores = np.asarray([score(t) for t in grid])
    top = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(grid[int(top[len(top) // 2])])


def rerank(
    draft: Candidate, rewrites: Sequence[Candidate], margin: float, ranker: str = "orm", latex: bool = False
) -> Candidate:
    """The rewrite of the highest score (the first among equals) where it beats the draft's by over `margin`."""
    kept, *scores = RANKERS[ranker]([draft, *rewrites], latex)
    best = max(range(len(rewrites)), key=scores.__getitem__)
    return rewrites[best] if scores[best] > kept + margin else draft


def system(case: Case, margin: float, ranker: str = "orm") -> Candidate:
    """The whole system's choice of {draft, global, local}."""
    return rerank(case.draft, [case.refinements[name] for name in REFINERS], margin, ranker, in_latex(case))


def in_latex(case: Case) -> bool:
    """Whether answers to the problem are in LaTeX."""
    return final_answers.is_latex(case.problem.answer)


def gated(case: Case, refiner: str, gate: float) -> Candidate:
    """The refiner's rewrite where the ORM's final value of the draft is below the gate, else the draft."""
    return case.refinements[refiner] if final_value(case.draft) < gate else case.draft


def best_of(samples: Sequence[Candidate], ranker: str = "orm", latex: bool = False) -> Candidate:
    """The sample of the highest score, the earliest among equals."""
    scores = RANKERS[ranker](samples, latex)
    return samples[max(range(len(samples)), key=scores.__getitem__)]


def majority(samples: Sequence[Candidate], latex: bool = False) -> Candidate:
    """The earliest sample with the most common final answer; among equally common ones, the earliest.

    Answers are equal as numbers, or as LaTeX. A sample without one casts no vote; where none has one, the first is
    taken.
    """
    votes = final_answers.votes([sample.solution.text for sample in samples], latex)
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return samples[0]
    # most_common keeps the order of first appearance among equal counts.
    winner = counts.most_common(1)[0][0]
    return samples[votes.index(winner)]
