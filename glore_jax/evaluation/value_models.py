"""How good the value models are: on steps (where), on final answers (which), on the first error.

All on the students' greedy test drafts. A *prefix* P_i is right while no step up to it is false, by the oracle;
the closing answer line is a step. Rows that need the oracle are left out where a task has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from glore_jax.decisions import first_below
from glore_jax.evaluation.runs import Measure, Walk, has_oracle, rate
from glore_jax.evaluation.statistics import Auroc, Sums, balanced, harmonic, ordered
from glore_jax.rankers import final_value
from glore_jax.records import Candidate

MODELS = ("orm", "orm_balanced", "sorm")
TITLES = {"orm": "ORM", "orm_balanced": "balanced ORM", "sorm": "SORM"}
PAPER_THRESHOLD = 0.5

Threshold = Callable[[Walk], float]


def models_of(walks: Sequence[Walk]) -> list[str]:
    """The value models that scored every draft."""
    return [model for model in MODELS if all(model in walk.case.draft.values for walk in walks)]


def judged(walks: Sequence[Walk]) -> bool:
    """Whether the oracle judged any draft."""
    return any(has_oracle(walk.case.draft) for walk in walks)


def prefix_truth(candidate: Candidate) -> list[bool]:
    """For each step, whether the prefix that ends with it is still right; [] without an oracle."""
    false = candidate.first_false
    if false is None:
        return []
    return [false == -1 or i < false for i in range(candidate.solution.num_steps)]


def prefixes(candidate: Candidate, model: str) -> list[tuple[float, bool]]:
    """(value, truth) of each prefix P_1..P_L that the oracle judged."""
    truth = prefix_truth(candidate)
    return list(zip(candidate.values[model], truth, strict=True)) if truth else []


def tuned(key: str) -> Threshold:
    """The run's own threshold of this name, chosen on dev."""
    return lambda walk: walk.thresholds[key]


def at_paper(_: Walk) -> float:
    return PAPER_THRESHOLD


def class_sums(walks: Sequence[Walk], model: str, threshold: Threshold, only: int | None = None) -> np.ndarray:
    """[N, 4]: right prefixes called right, right prefixes, wrong prefixes called wrong, wrong prefixes.

    Args:
      only: count just the prefix of this many steps; all where None.
    """
    sums = np.zeros((len(walks), 4))
    for row, walk in zip(sums, walks, strict=True):
        limit = threshold(walk)
        for length, (value, truth) in enumerate(prefixes(walk.case.draft, model), 1):
            if only is None or length == only:
                offset = 0 if truth else 2
                row[offset] += (value >= limit) == truth
                row[offset + 1] += 1
    return sums


def _auroc(items: list[tuple[int, int, float, bool]], name: str, definition: str) -> Measure:
    """AUROC of (owner, run, score, truth) items, pairs within a run."""
    columns = np.array(items, dtype=float).reshape(-1, 4).T
    owner, run, scores, truth = columns
    statistic = Auroc(scores, truth.astype(bool), owner.astype(int), run)
    return Measure(name, statistic, definition, None, len(items))


def step_measures(walks: Sequence[Walk], model: str) -> list[Measure]:
    """Balanced step accuracy at 0.5, its two halves, at the dev-tuned threshold, and the AUROC."""
    title, name = TITLES[model], f"{model}_step_accuracy"
    sums = class_sums(walks, model, at_paper)
    right, wrong = int(sums[:, 1].sum()), int(sums[:, 3].sum())
    over = f"{right} right and {wrong} wrong prefixes P_1..P_L of test drafts (answer line included)"
    called = f"{title} value at least 0.5 means right"
    measures = [
        Measure(
            name,
            Sums(sums, balanced),
            f"Mean of the accuracies on right and on wrong prefixes (classes balanced; truth: the oracle's 'prefix "
            f"still right'); {called}. Over {over}.",
            None,
            right + wrong,
        ),
        rate(f"{name}_right", sums[:, :2], f"Right prefixes of test drafts that the {title} calls right at 0.5."),
        rate(f"{name}_wrong", sums[:, 2:], f"Wrong prefixes of test drafts that the {title} calls wrong at 0.5."),
    ]
    key = f"{model}_step"
    if all(key in walk.thresholds for walk in walks):
        measures.append(
            Measure(
                f"{name}_tuned",
                Sums(class_sums(walks, model, tuned(key)), balanced),
                f"As {name}, at the threshold that is best for the {title} on dev. Over {over}.",
                None,
                right + wrong,
            )
        )
    items = [(i, w.run, value, truth) for i, w in enumerate(walks) for value, truth in prefixes(w.case.draft, model)]
    definition = f"Chance that a right prefix has a higher {title} value than a wrong one (ties half). Over {over}."
    return [*measures, _auroc(items, f"{model}_step_auroc", definition)]


def final_measures(walks: Sequence[Walk], model: str) -> list[Measure]:
    """Accuracy and AUROC of the final value against the final answer."""
    title, name = TITLES[model], f"{model}_final_accuracy"

    def hits(threshold: Threshold, pool: Callable[[Walk], Sequence[Candidate]]) -> list[tuple[float, float]]:
        return [
            (sum((final_value(c, model) >= threshold(w)) == c.solution.right for c in pool(w)), len(pool(w)))
            for w in walks
        ]

    def draft(walk: Walk) -> list[Candidate]:
        return [walk.case.draft]

    said = f"{title} value of the last step at least 0.5 means right; truth: the final answer"
    measures = [rate(name, hits(at_paper, draft), f"Test drafts judged rightly. {said}.")]
    key = f"{model}_final"
    if all(key in walk.thresholds for walk in walks):
        definition = f"As {name}, at the threshold that is best for the {title} on dev. Over test drafts."
        measures.append(rate(f"{name}_tuned", hits(tuned(key), draft), definition))
    items = [(i, w.run, final_value(w.case.draft, model), w.case.draft.solution.right) for i, w in enumerate(walks)]
    definition = f"Chance that a right draft has a higher final {title} value than a wrong one (ties half)."
    measures.append(_auroc(items, f"{model}_final_auroc", f"{definition} Over test drafts."))
    if any(model in sample.values for walk in walks for sample in walk.case.samples):
        pool = "drafts and those samples that best of three chooses from"

        def answers(walk: Walk) -> list[Candidate]:
            return [c for c in (walk.case.draft, *walk.case.samples) if model in c.values]

        measures.append(
            rate(f"{name}_all", hits(at_paper, answers), f"Of the test problems, {pool}, judged rightly. {said}.")
        )
        definition = (
            f"Pairs of a right and a wrong answer to one question ({pool}) that the final {title} value orders rightly "
            f"(ties half), over all such pairs."
        )
        pairs = [_ordered_pairs(answers(walk), model) for walk in walks]
        measures.append(rate(f"{model}_final_auroc_within", pairs, definition, countable=False))
    return measures


def _ordered_pairs(pool: Sequence[Candidate], model: str) -> tuple[float, float]:
    """(right, wrong) pairs ordered rightly, ties half, and all such pairs."""
    right = [final_value(c, model) for c in pool if c.solution.right]
    return ordered(right, [final_value(c, model) for c in pool if not c.solution.right])


def location_sums(located: Sequence[int], truth: Sequence[int | None]) -> np.ndarray:
    """[N, 4]: errors located exactly, drafts with an error, clean drafts called clean, clean drafts.

    Args:
      located, truth: the first false step of each draft, said and true; -1 none, a truth of None is not known.
    """
    sums = np.zeros((len(truth), 4))
    for row, said, false in zip(sums, located, truth, strict=True):
        if false is not None:
            offset = 0 if false >= 0 else 2
            row[offset : offset + 2] = said == false, 1
    return sums


def first_error_measures(walks: Sequence[Walk], models: Sequence[str]) -> list[Measure]:
    """ProcessBench's F1 for each model at 0.5 and at its dev-tuned threshold, and for the system's own location."""

    def measure(name: str, how: str, locate: Callable[[Walk], int]) -> Measure:
        sums = location_sums([locate(w) for w in walks], [w.case.draft.first_false for w in walks])
        errors, clean = int(sums[:, 1].sum()), int(sums[:, 3].sum())
        definition = (
            f"ProcessBench F1: harmonic mean of two accuracies, first false step named exactly ({errors} test drafts "
            f"with one) and none named ({clean} drafts without). {how}"
        )
        return Measure(name, Sums(sums, harmonic), definition, None, errors + clean)

    def at(model: str, threshold: Threshold) -> Callable[[Walk], int]:
        return lambda walk: first_below(walk.case.draft.values[model], threshold(walk))

    measures = []
    for model in models:
        name, title = f"{model}_first_error_f1", TITLES[model]
        measures.append(measure(name, f"Named: the first step of {title} value under 0.5.", at(model, at_paper)))
        key = f"{model}_f1"
        if all(key in walk.thresholds for walk in walks):
            how = f"Named: the first step of {title} value under the threshold that is best for it on dev."
            measures.append(measure(f"{name}_tuned", how, at(model, tuned(key))))
    how = "Named: the first step of SORM value under the dev-tuned threshold of WHERE, -1 where there is none."
    return [*measures, measure("located_first_error_f1", how, lambda walk: walk.case.located)]
