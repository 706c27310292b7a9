"""By what candidates for one problem are compared: the paper's ORM, and what others made of step values.

A ranker gives each candidate of a group a score; the highest is kept. Step values become the value of a whole solution
by their last, least or product (Lightman et al., 2023; Wang et al., 2024). Votes add up what candidates of the same
answer have (Wang et al., 2023, with the ORM's values as weights).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from glore_jax import final_answers
from glore_jax.errors import InputError
from glore_jax.records import Candidate

Ranker = Callable[..., list[float]]  # of the candidates, and whether their answers are in LaTeX


def final_value(candidate: Candidate, model: str = "orm") -> float:
    """A value model's probability for the whole solution: that of its last step, 0 for one without steps."""
    values = candidate.values[model]
    return values[-1] if values else 0.0


def least_value(candidate: Candidate, model: str = "sorm") -> float:
    """The value of the step that is doubted most, 0 for a solution without steps."""
    return min(candidate.values[model], default=0.0)


def product_of_values(candidate: Candidate, model: str = "sorm") -> float:
    """As if each step were right or wrong by itself; 0 for a solution without steps."""
    values = candidate.values[model]
    return math.prod(values) if values else 0.0


def both_values(candidate: Candidate) -> float:
    """Geometric mean of the final values of ORM and SORM."""
    return math.sqrt(final_value(candidate, "orm") * final_value(candidate, "sorm"))


def _each(score: Callable[[Candidate], float]) -> Ranker:
    return lambda candidates, latex=False: [score(candidate) for candidate in candidates]


def by_votes(candidates: Sequence[Candidate], latex: bool = False) -> list[float]:
    """The sum of the final ORM values of all candidates with the same answer; without one, a candidate's own."""
    found = final_answers.votes([c.solution.text for c in candidates], latex)
    sums: dict[object, float] = defaultdict(float)
    for answer, candidate in zip(found, candidates, strict=True):
        sums[answer] += final_value(candidate)
    return [final_value(c) if a is None else sums[a] for a, c in zip(found, candidates, strict=True)]


RANKERS: dict[str, Ranker] = {
    "orm": _each(final_value),
    "sorm": _each(lambda candidate: final_value(candidate, "sorm")),
    "sorm_least": _each(least_value),
    "sorm_product": _each(product_of_values),
    "both": _each(both_values),
    "orm_votes": by_votes,
}
# How the report speaks of them.
SCORES = {
    "orm": "final ORM value",
    "sorm": "final SORM value",
    "sorm_least": "lowest SORM value of a step",
    "sorm_product": "product of SORM values of all steps",
    "both": "mean (geometric) of final ORM and SORM value",
    "orm_votes": "sum of final ORM values of the candidates with the same answer",
}


def check(name: str) -> None:
    """InputError where `evaluation.ranker` is none of `RANKERS`."""
    if name not in RANKERS:
        raise InputError(f"evaluation.ranker={name!r}: expected one of {', '.join(RANKERS)}")
