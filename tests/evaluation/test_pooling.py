"""Two runs pooled: figures over all problems, the interval over seeds."""

from __future__ import annotations

import pytest

from glore_jax.errors import InputError
from glore_jax.evaluation import tables
from glore_jax.evaluation.pooling import pool, seed_interval
from glore_jax.evaluation.runs import Run


@pytest.fixture
def runs(candidate, case, thresholds):
    """Run 0: one of two drafts right. Run 1: all four right. Thresholds differ by run."""
    right, wrong = candidate(1, orm=(0.9, 0.9)), candidate(2, 0, orm=(0.6, 0.6))
    first = Run([case(right, question="a"), case(wrong, globally=right, question="b")], thresholds)
    second = Run([case(right, globally=wrong, question=q) for q in "abcd"], {**thresholds, "gate": 0.95})
    return [first, second]


def row_of(metrics, name):
    return next(row for row in metrics["rows"] if row["name"] == name)


def test_pooled_value_is_over_all_problems(runs):
    metrics = pool(runs, resamples=100)
    row = row_of(metrics, "student_accuracy")
    assert (row["value"], row["count"], row["denominator"]) == (pytest.approx(5 / 6), 5, 6)
    assert row["seeds"] == [0.5, 1.0]
    assert (row["seed_mean"], row["seed_min"], row["seed_max"]) == (0.75, 0.5, 1.0)
    half = 12.7062 * 0.353553 / 2**0.5  # t at one degree of freedom, standard deviation of (0.5, 1)
    assert (row["seed_low"], row["seed_high"]) == (
        pytest.approx(0.75 - half, abs=1e-4),
        pytest.approx(0.75 + half, abs=1e-4),
    )
    assert metrics["runs"] == 2 and metrics["problems"] == 6


def test_each_run_keeps_its_own_thresholds(runs):
    # Run 0's gate (0.5) lets no draft through to the refiner; run 1's (0.95) lets all.
    assert row_of(pool(runs, resamples=20), "gated_global_accuracy")["seeds"] == [0.5, 0.0]


def test_auroc_compares_values_within_a_run_only(candidate, case, thresholds):
    """Each run orders its own drafts perfectly, on scales that overlap the wrong way round."""
    low = Run([case(candidate(1, orm=(0.2,))), case(candidate(2, 0, orm=(0.1,)))], thresholds)
    high = Run([case(candidate(1, orm=(0.9,))), case(candidate(2, 0, orm=(0.8,)))], thresholds)
    assert row_of(pool([low, high], resamples=20), "orm_final_auroc")["value"] == 1.0


def test_the_same_question_in_two_runs_is_one_question(candidate, case, thresholds):
    """Answers to one question move together: two runs of the same problems do not halve the interval."""
    drafts = [candidate(1 if i % 2 else 2, -1 if i % 2 else 0) for i in range(40)]
    run = Run([case(draft, question=f"q{i}") for i, draft in enumerate(drafts)], thresholds)
    once, twice = (row_of(pool([run] * n, resamples=200), "student_accuracy") for n in (1, 2))
    assert (once["low"], once["high"]) == (twice["low"], twice["high"])
    assert once["seed_low"] is None and twice["seed_low"] == twice["seed_high"] == 0.5


def test_a_row_that_one_run_lacks_is_none_for_its_seed(runs, thresholds, candidate, case):
    blind = Run([case(candidate(1, first_false=None))], thresholds)
    row = row_of(pool([runs[0], blind], resamples=20), "orm_step_accuracy")
    assert row["seeds"][1] is None and row["seed_mean"] == row["seeds"][0]


def test_label_audits_are_summed(runs):
    import dataclasses

    audits = (
        {
            "sorm_label_accuracy": {"per_trace": [[1, 2]]},
            "rates": [{"stage": "raw", "prefix": 1, "positive": 1, "count": 4}],
        },
        {
            "sorm_label_accuracy": {"per_trace": [[2, 2]]},
            "rates": [{"stage": "raw", "prefix": 1, "positive": 2, "count": 2}],
        },
    )
    audited = [dataclasses.replace(run, label_audit=audit) for run, audit in zip(runs, audits, strict=True)]
    metrics = pool(audited, resamples=20)
    assert row_of(metrics, "sorm_label_accuracy")["value"] == 0.75
    assert metrics["curves"]["label_rates"]["raw"][0]["value"] == 0.5


def test_seed_interval_needs_two_seeds():
    assert seed_interval([0.5]) == (None, None)
    assert seed_interval([0.5, 0.5]) == (0.5, 0.5)


def test_no_runs_are_refused():
    with pytest.raises(InputError, match="no runs"):
        pool([])


def test_markdown_shows_seeds_command_and_revision(runs):
    text = tables.markdown(pool(runs, resamples=20), "Three seeds", "glore run --config=x", "abc123")
    assert "`glore run --config=x`" in text and "abc123" in text
    row = next(line for line in text.splitlines() if line.startswith("| `student_accuracy`"))
    assert "50.0, 100.0" in row and "| 53.0 |" in row and "| 5/6 |" in row
    header = next(line for line in text.splitlines() if line.startswith("| metric"))
    assert header.count("|") == row.count("|")
    assert "not measured" in text  # claims that cannot be checked are said, not hidden
