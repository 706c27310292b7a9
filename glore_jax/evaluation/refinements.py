"""How often answers are right: the student, the refiners, the baselines and the whole system."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from glore_jax.decisions import REFINERS, best_of, gated, in_latex, majority, rerank, system
from glore_jax.evaluation.runs import Measure, Walk, rate, share
from glore_jax.rankers import SCORES
from glore_jax.records import Candidate

PASS_AT = (1, 2, 3, 4, 8, 16)
NUM_CANDIDATES = 3  # what the system spends: draft, global, local


def right(candidate: Candidate) -> bool:
    return candidate.solution.right


def sft_right(walk: Walk) -> bool:
    assert walk.case.sft is not None  # on test they are sampled
    return right(walk.case.sft)


def draft_right(walk: Walk) -> bool:
    return walk.case.draft.solution.right


def draft_wrong(walk: Walk) -> bool:
    return not draft_right(walk)


def rewritten(walk: Walk, refiner: str) -> bool:
    """Whether a refiner's rewrite of the draft is right."""
    return right(walk.case.refinements[refiner])


def chosen(walk: Walk) -> Candidate:
    """The whole system's answer under the run's own rank margin."""
    return system(walk.case, walk.thresholds["rank_margin"], walk.ranker)


def reranked(walk: Walk, refiner: str) -> Candidate:
    """The ranker's choice between the draft and one refiner's rewrite."""
    case, margin = walk.case, walk.thresholds["rank_margin"]
    return rerank(case.draft, [case.refinements[refiner]], margin, walk.ranker, in_latex(case))


def best_sample(walk: Walk) -> Candidate:
    """The ranker's choice of as many samples as the system has candidates."""
    return best_of(walk.case.samples[:NUM_CANDIDATES], walk.ranker, in_latex(walk.case))


def score_of(walks: Sequence[Walk]) -> str:
    """By what the system chooses, in words."""
    return " or ".join(dict.fromkeys(SCORES[walk.ranker] for walk in walks))


def min_samples(walks: Sequence[Walk]) -> int:
    return min(len(walk.case.samples) for walk in walks)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that k of the samples, drawn without replacement, hold a right one (unbiased for pass@k).

    >>> pass_at_k(4, 2, 2)  # 5 of the 6 pairs
    0.8333333333333334
    """
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def pass_measure(walks: Sequence[Walk], k: int) -> Measure:
    """pass@k of the student's samples, an average over problems."""
    pairs = []
    for walk in walks:
        outcomes = [right(sample) for sample in walk.case.samples]
        pairs.append((pass_at_k(len(outcomes), sum(outcomes), k), 1.0))
    definition = (
        f"Chance that {k} of the student's samples at the paper's temperature hold a right one "
        f"(unbiased estimate from at least {min_samples(walks)} samples a problem), over all test problems."
        if k > 1
        else "Share of the student's samples at the paper's temperature that are right, over all test problems."
    )
    return rate(f"student_pass_at_{k}", pairs, definition, countable=False)


def student_measures(walks: Sequence[Walk]) -> list[Measure]:
    """The student before any refinement."""
    everything = "over all test problems"
    measures = [
        share(
            "sft_accuracy",
            walks,
            sft_right,
            f"Greedy solutions of the supervised student, before expert iteration, that are right, {everything}.",
        ),
        share("student_accuracy", walks, draft_right, f"Greedy drafts of the student that are right, {everything}."),
    ]
    return measures + [pass_measure(walks, k) for k in PASS_AT if k <= min_samples(walks)]


def fix_measures(walks: Sequence[Walk]) -> list[Measure]:
    """Of the wrong drafts, how many each refiner mends; every denominator holds wrong drafts only."""
    named = {
        "global_fix_rate": ("global", "the global refiner mends"),
        "local_fix_rate": ("local", "the local refiner mends at the step that the SORM names"),
        "local_fix_rate_oracle_critique": ("local_oracle", "the local refiner mends at the step that the oracle names"),
        "value_conditioned_fix_rate": ("value_conditioned", "the value-conditioned refiner mends"),
    }

    def made(refiner: str) -> Callable[[Walk], bool]:
        return lambda walk: draft_wrong(walk) and refiner in walk.case.refinements

    measures = []
    for name, (refiner, what) in named.items():
        # A rewrite that was not made is not a failure: the local one with the oracle's step needs an oracle.
        if any(refiner in walk.case.refinements for walk in walks):
            definition = f"Wrong drafts that {what}, over the wrong drafts it was given."
            measures.append(share(name, walks, lambda w, r=refiner: rewritten(w, r), definition, made(refiner)))
    both: list[tuple[str, Callable[[Walk], bool], str]] = [
        ("union_fix_rate", lambda w: any(rewritten(w, r) for r in REFINERS), "at least one of global and local mends"),
        ("overlap_fix_rate", lambda w: all(rewritten(w, r) for r in REFINERS), "global and local both mend"),
    ]
    for name, hit, what in both:
        measures.append(share(name, walks, hit, f"Wrong drafts that {what}, over all wrong drafts.", draft_wrong))
    return measures


def refiner_measures(walks: Sequence[Walk], refiner: str) -> list[Measure]:
    """One refiner alone, in each of its readings: on every draft, behind the gate, and reranked with the draft."""
    everything = "over all test problems"
    return [
        share(
            f"refine_all_{refiner}_accuracy",
            walks,
            lambda w: rewritten(w, refiner),
            f"Right answers where every draft is replaced by its {refiner} rewrite, {everything}.",
        ),
        share(
            f"gated_{refiner}_accuracy",
            walks,
            lambda w: right(gated(w.case, refiner, w.thresholds["gate"])),
            f"Right answers where a draft is replaced by its {refiner} rewrite only if its final ORM value is under "
            f"the gate (chosen on dev), {everything}.",
        ),
        share(
            f"{refiner}_reranked_accuracy",
            walks,
            lambda w: right(reranked(w, refiner)),
            f"Right answers where the higher {score_of(walks)} decides between draft and {refiner} rewrite, with the "
            f"system's margin, {everything}.",
        ),
        share(
            f"refine_all_harm_rate_{refiner}",
            walks,
            lambda w: not rewritten(w, refiner),
            f"Right drafts whose {refiner} rewrite is wrong, over right drafts.",
            draft_right,
        ),
    ]


def baseline_measures(walks: Sequence[Walk]) -> list[Measure]:
    """As many candidates as the system spends, all sampled from the student."""
    if min_samples(walks) < NUM_CANDIDATES:
        return []
    k, everything = NUM_CANDIDATES, "over all test problems"
    return [
        share(
            f"best_of_{k}_accuracy",
            walks,
            lambda w: right(best_sample(w)),
            f"Right answers where the first {k} samples' highest {score_of(walks)} decides, {everything}.",
        ),
        share(
            f"majority_of_{k}_accuracy",
            walks,
            lambda w: right(majority(w.case.samples[:k], in_latex(w.case))),
            f"Right answers where the first {k} samples' most common answer decides (tie: the earliest), {everything}.",
        ),
    ]


def system_measures(walks: Sequence[Walk]) -> list[Measure]:
    """The whole system: draft, global, local, and the ranker's choice."""
    everything = "over all test problems"
    return [
        share(
            "system_accuracy",
            walks,
            lambda w: right(chosen(w)),
            f"Right answers of the system: the highest {score_of(walks)} of draft, global and local rewrite, the draft "
            f"kept unless a rewrite exceeds it by more than the margin chosen on dev, {everything}.",
        ),
        share(
            "system_oracle_rerank_accuracy",
            walks,
            lambda w: draft_right(w) or any(rewritten(w, r) for r in REFINERS),
            f"Problems with a right answer among draft, global and local rewrite (a perfect choice), {everything}.",
        ),
        share(
            "harm_rate",
            walks,
            lambda w: not right(chosen(w)),
            "Right drafts that the system answers wrong, over right drafts.",
            draft_right,
        ),
    ]
