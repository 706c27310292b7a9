"""Every family of rows on walks small enough to count by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.errors import InputError
from glore_jax.evaluation.metrics import DIFFERENCES, PAPER, evaluate
from glore_jax.evaluation.refinements import pass_at_k
from glore_jax.evaluation.runs import Run


def rows_of(cases, thresholds, **more):
    metrics = evaluate([Run(cases, thresholds, **more)], resamples=50)
    return {row["name"]: row for row in metrics["rows"]}


def values_of(cases, thresholds, **more):
    return {name: row["value"] for name, row in rows_of(cases, thresholds, **more).items()}


@pytest.fixture
def four(candidate, case):
    """Two right drafts, two wrong: global mends C, local mends D and harms B; the ORM follows good and bad."""
    good, bad = candidate(1, orm=(0.9, 0.9)), candidate(2, first_false=0, orm=(0.2, 0.2))
    liked = candidate(3, first_false=1, orm=(0.9, 0.95))  # wrong, but the ORM likes it
    return [
        case(good, good, good, question="A"),
        case(good, good, liked, question="B"),
        case(bad, good, bad, question="C", local_oracle=good),
        case(bad, bad, good, question="D", local_oracle=bad),
    ]


def test_refinement_rows(four, thresholds):
    values = values_of(four, thresholds)
    assert values["student_accuracy"] == values["sft_accuracy"] == 0.5
    assert values["global_fix_rate"] == values["local_fix_rate"] == 0.5
    assert values["local_fix_rate_oracle_critique"] == 0.5
    assert values["union_fix_rate"] == 1.0
    assert values["overlap_fix_rate"] == 0.0
    assert values["refine_all_global_accuracy"] == 0.75
    assert values["refine_all_local_accuracy"] == 0.5
    assert values["gated_local_accuracy"] == 0.75  # the gate keeps B's good draft
    assert values["local_reranked_accuracy"] == 0.5  # the ORM falls for the liked one, and mends D
    assert values["refine_all_harm_rate_global"] == 0.0
    assert values["refine_all_harm_rate_local"] == 0.5
    assert values["system_accuracy"] == 0.75
    assert values["system_oracle_rerank_accuracy"] == 1.0
    assert values["harm_rate"] == 0.5
    assert values["system_minus_student"] == 0.25
    assert values["gated_minus_refine_all_local"] == 0.25
    assert "value_conditioned_fix_rate" not in values


def test_margin_and_gate_are_the_runs_own(four, thresholds):
    assert values_of(four, {**thresholds, "rank_margin": 0.06})["harm_rate"] == 0.0
    assert values_of(four, {**thresholds, "gate": 0.1})["gated_local_accuracy"] == 0.5


def test_rows_say_what_they_are_over(four, thresholds):
    rows = rows_of(four, thresholds)
    assert (rows["union_fix_rate"]["count"], rows["union_fix_rate"]["denominator"]) == (2, 2)
    assert (rows["harm_rate"]["count"], rows["harm_rate"]["denominator"]) == (1, 2)
    assert rows["system_minus_student"]["count"] is None
    for row in rows.values():
        assert set(row) == {"name", "value", "low", "high", "count", "denominator", "paper", "definition"}
        assert row["definition"]
        assert row["value"] is None or row["low"] <= row["value"] <= row["high"]
        assert row["paper"] == PAPER.get(row["name"])


def test_step_accuracy_is_balanced_over_classes(candidate, case, thresholds):
    # Right prefixes: 0.9, 0.6, 0.4 (two of three called right at 0.5). Wrong: 0.8, 0.2, 0.1, 0.3 (three of four).
    clean = candidate(1, orm=(0.9, 0.6), sorm=(0.9, 0.9))
    broken = candidate(2, first_false=1, orm=(0.4, 0.8, 0.2, 0.1, 0.3), sorm=(0.9, 0.1, 0.1, 0.1, 0.1))
    rows = rows_of([case(clean), case(broken)], thresholds)
    assert rows["orm_step_accuracy"]["value"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert rows["orm_step_accuracy"]["denominator"] == 7
    assert rows["orm_step_accuracy_right"]["value"] == pytest.approx(2 / 3)
    assert (rows["orm_step_accuracy_wrong"]["count"], rows["orm_step_accuracy_wrong"]["denominator"]) == (3, 4)
    # Tuned to 0.7: right prefixes one of three, wrong three of four.
    assert rows["orm_step_accuracy_tuned"]["value"] == pytest.approx((1 / 3 + 3 / 4) / 2)
    # AUROC: 0.9 beats 4, 0.6 beats 3, 0.4 beats 3 of the wrong.
    assert rows["orm_step_auroc"]["value"] == pytest.approx(10 / 12)
    assert rows["sorm_step_accuracy"]["value"] == 1.0
    assert rows["sorm_minus_orm_step_accuracy"]["value"] == pytest.approx(1 - 17 / 24)
    assert "orm_balanced_step_accuracy_tuned" not in rows  # no threshold was given for it


def test_samples_that_no_value_model_read_are_left_out_of_its_figures(candidate, case, thresholds):
    right, wrong, unread = candidate(1, orm=(0.6,)), candidate(2, 0, orm=(0.7,)), candidate(2, 0)
    unread = dataclasses.replace(unread, values={})
    rows = rows_of([case(right, samples=[wrong, wrong, wrong, unread]), case(right, samples=[right] * 4)], thresholds)
    # The two drafts and four samples are right and called so; the three wrong samples are called right too.
    assert (rows["orm_final_accuracy_all"]["count"], rows["orm_final_accuracy_all"]["denominator"]) == (6, 9)
    assert rows["orm_final_auroc_within"]["value"] == 0  # the right draft is below each wrong sample
    assert rows["student_pass_at_1"]["value"] == pytest.approx((0 + 1) / 2)  # of all samples


def test_final_accuracy_and_auroc(candidate, case, thresholds):
    right, wrong, close = candidate(1, orm=(0.1, 0.6)), candidate(2, 0, orm=(0.9, 0.3)), candidate(3, 0, orm=(0.6,))
    rows = rows_of(
        [
            case(right, samples=[right, wrong, wrong]),
            case(wrong, samples=[close, right, wrong]),
            case(close, samples=[wrong] * 3),
        ],
        thresholds | {"orm_final": 0.7},
    )
    assert (rows["orm_final_accuracy"]["count"], rows["orm_final_accuracy"]["denominator"]) == (2, 3)
    assert rows["orm_final_accuracy_tuned"]["value"] == pytest.approx(2 / 3)  # now the right one is missed
    assert rows["orm_final_auroc"]["value"] == pytest.approx(1.5 / 2)  # a win and a tie
    assert (rows["orm_final_accuracy_all"]["count"], rows["orm_final_accuracy_all"]["denominator"]) == (10, 12)
    # Within: first question 2 right x 2 wrong, all won; second 1 right over wrong, close, wrong: 2.5 of 3; third none.
    assert rows["orm_final_auroc_within"]["value"] == pytest.approx(6.5 / 7)
    assert "sorm_final_accuracy_tuned" not in rows


def test_first_error_f1_is_processbench(candidate, case, thresholds):
    drafts = [
        candidate(2, first_false=1, orm=(0.9, 0.4, 0.1)),  # found exactly
        candidate(2, first_false=1, orm=(0.4, 0.4, 0.1)),  # one step early
        candidate(2, first_false=2, orm=(0.9, 0.9, 0.9)),  # missed
        candidate(2, first_false=0, orm=(0.4, 0.9)),  # found exactly, in the first step
        candidate(1, first_false=-1, orm=(0.9, 0.9)),  # clean, called clean
        candidate(2, first_false=-1, orm=(0.9, 0.9)),  # every step true, no right answer: clean too
        candidate(1, first_false=-1, orm=(0.9, 0.6)),  # called clean at 0.5, not at 0.7
    ]
    rows = rows_of([case(draft, located=1) for draft in drafts], thresholds)
    assert rows["orm_first_error_f1"]["value"] == pytest.approx(2 * (2 / 4) * 1 / (2 / 4 + 1))
    assert rows["orm_first_error_f1_tuned"]["value"] == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert rows["located_first_error_f1"]["value"] == 0.0  # two errors named, no clean draft called clean
    assert rows["orm_first_error_f1"]["denominator"] == 7


def test_without_an_oracle_its_rows_are_left_out(candidate, case, thresholds):
    draft = candidate(1, first_false=None)
    metrics = evaluate([Run([case(draft)], thresholds)], resamples=20)
    names = {row["name"] for row in metrics["rows"]}
    assert not {name for name in names if "step_a" in name or "first_error" in name or "label" in name}
    assert {"orm_final_accuracy", "system_accuracy"} <= names
    verdicts = {claim["row"]: claim["verdict"] for claim in metrics["claims"]}
    assert verdicts["sorm_minus_orm_step_accuracy"] == verdicts["sorm_label_accuracy"] == "not measured"
    assert "step_accuracy_by_prefix" not in metrics["curves"]


def test_nothing_to_divide_by_is_none_not_a_number(candidate, case, thresholds):
    metrics = evaluate([Run([case(candidate(1))], thresholds)], resamples=20)
    rows = {row["name"]: row for row in metrics["rows"]}
    assert rows["global_fix_rate"]["value"] is rows["global_fix_rate"]["low"] is None
    assert rows["global_fix_rate"]["denominator"] == 0
    json.dumps(metrics, allow_nan=False)


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_equals_enumeration(outcomes, data):
    k = data.draw(st.integers(1, len(outcomes)))
    draws = [any(draw) for draw in itertools.combinations(outcomes, k)]
    assert pass_at_k(len(outcomes), sum(outcomes), k) == pytest.approx(sum(draws) / len(draws))


def test_pass_at_k_rows_go_as_far_as_the_samples(candidate, case, thresholds):
    right, wrong = candidate(1), candidate(2, 0, orm=(0.1, 0.2))
    rows = rows_of([case(right, samples=[right, wrong, wrong]), case(wrong, samples=[wrong] * 3)], thresholds)
    assert rows["student_pass_at_1"]["value"] == pytest.approx(1 / 6)
    assert rows["student_pass_at_2"]["value"] == pytest.approx(2 / 3 / 2)
    assert rows["student_pass_at_3"]["value"] == 0.5
    assert "student_pass_at_4" not in rows
    assert rows["best_of_3_accuracy"]["value"] == 0.5
    assert rows["majority_of_3_accuracy"]["value"] == 0.0
    few = rows_of([case(right, samples=[right, right])], thresholds)
    assert not {"student_pass_at_3", "best_of_3_accuracy", "system_minus_best_of_3"} & set(few)


def test_label_rows_come_from_the_audit(four, thresholds):
    audit = {
        "sorm_label_accuracy": {"correct": 5, "count": 6, "per_trace": [[3, 3], [2, 3]]},
        "ablation": [{"name": "raw any-of-K", "accuracy": 0.5, "per_trace": [[2, 3], [1, 3]]}],
        "rates": [{"stage": "raw", "prefix": 1, "positive": 3, "count": 4}],
    }
    metrics = evaluate([Run(four, thresholds, audit)], resamples=50)
    row = next(row for row in metrics["rows"] if row["name"] == "sorm_label_accuracy")
    assert (row["value"], row["count"], row["denominator"], row["paper"]) == (pytest.approx(5 / 6), 5, 6, 0.94)
    assert (row["low"], row["high"]) == (pytest.approx(2 / 3), 1.0)
    (raw,) = metrics["ablation"]
    assert (raw["value"], raw["count"], raw["denominator"]) == (0.5, 3, 6)
    (point,) = metrics["curves"]["label_rates"]["raw"]
    assert (point["x"], point["value"]) == (1, 0.75)


def test_curves_by_hand(candidate, case, thresholds):
    clean, broken = candidate(1, orm=(0.9, 0.6)), candidate(2, first_false=1, orm=(0.4, 0.8, 0.8))
    curves = evaluate([Run([case(clean), case(broken)], thresholds)], resamples=20)["curves"]
    positions = {p["x"]: (p["count"], p["denominator"]) for p in curves["student_step_accuracy"]["greedy draft"]}
    assert positions == {1: (2, 2), 2: (1, 2)}  # step 3 only follows a false one
    # Length 1 has no wrong prefix, so no balanced accuracy; length 2: 0.6 right, 0.8 wrongly called right.
    assert [(p["x"], p["value"]) for p in curves["step_accuracy_by_prefix"]["ORM"]] == [(2, 0.5)]
    assert [(p["x"], p["value"]) for p in curves["accuracy_by_steps"]["draft"]] == [(2, 0.5)]
    bins = [(round(p["x"], 2), p["value"]) for p in curves["calibration_final"]["ORM"]]
    assert bins == [(0.6, 1.0), (0.8, 0.0)]


def test_intervals_are_deterministic_and_paired(four, thresholds):
    runs = [Run(four, thresholds)]
    assert evaluate(runs, resamples=50) == evaluate(runs, resamples=50)
    same = [case for case in four if case.draft is case.refinements["global"]]
    rows = rows_of(same, thresholds)
    # Global repeats these drafts, so gate or not never differs: the paired interval has no width.
    assert (rows["gated_minus_refine_all_global"]["low"], rows["gated_minus_refine_all_global"]["high"]) == (0.0, 0.0)
    assert rows["refine_all_global_accuracy"]["low"] < rows["refine_all_global_accuracy"]["high"]


def test_all_differences_are_reported(four, thresholds, candidate):
    import dataclasses

    cases = [dataclasses.replace(case, samples=(candidate(1), candidate(2), candidate(1))) for case in four]
    assert set(DIFFERENCES) <= set(rows_of(cases, thresholds))


def test_bad_runs_are_refused(four):
    with pytest.raises(InputError, match="no test problems"):
        evaluate([Run([], {"gate": 0.5, "rank_margin": 0.0})])
    with pytest.raises(InputError, match="lack rank_margin"):
        evaluate([Run(four, {"gate": 0.5})])
