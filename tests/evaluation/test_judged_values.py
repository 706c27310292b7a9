"""Value models on judged solutions: thresholds from dev alone, and the rule of the better generator, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from glore_jax.evaluation import final_values, first_errors, judged_values, tables
from glore_jax.evaluation.predictions import Predicted
from glore_jax.records import Judged


def item(question: str, value: float, good: bool, generator: str = "G") -> Predicted:
    """A solution of two steps; one that is not good is wrong from its second step on."""
    found = Judged(f"{question}{value}", question, ("a", "b"), -1 if good else 1, right=good, generator=generator)
    return Predicted(found, (0.9, value))


DEV = [item("d", 0.8, True), item("d", 0.7, False), item("e", 0.3, False)]
TEST = [
    item("p", 0.85, True, "G"),
    item("p", 0.2, False, "H"),
    item("q", 0.4, True, "H"),
    item("q", 0.6, False, "G"),
    item("r", 0.9, True, "G"),
]
TRAIN = [Judged(str(i), "t", ("a",), right=right, generator=name) for i, (name, right) in enumerate(
    [("G", True), ("G", True), ("G", False), ("H", True), ("H", False)]
)]  # fmt: skip


def metrics(test: list[Predicted] = TEST) -> dict[str, Any]:
    splits = {"dev": DEV, "test": test}
    return judged_values.measure({"when": splits, "where": splits}, TRAIN)


@pytest.mark.parametrize("module", [final_values, first_errors])
def test_a_threshold_from_elsewhere_is_kept_and_everything_is_measured(module):
    threshold = module.tune(DEV)
    assert threshold == pytest.approx(0.76)  # between 0.7 and 0.8, the middle of what tells them apart
    result = module.measure(TEST, threshold)
    assert (result["threshold"], result["dev"], result["measured"]) == (threshold, 0, len(TEST))
    assert module.measure(TEST, 0.5)["threshold"] == 0.5


def test_figures_by_hand():
    found = metrics()
    when, where = found["when"], found["where"]
    assert when["rows"][-1]["auroc"]["value"] == 0.5  # p is ordered rightly, q is not; r has no pair
    tuned = next(row for row in where["rows"] if row["group"] == "all" and row["threshold"] == where["threshold"])
    assert (tuned["errors"], tuned["clean"]) == (2, 3)
    assert tuned["error_accuracy"]["value"] == 1.0  # 0.2 and 0.6 are under the threshold, their first steps are not
    assert tuned["clean_accuracy"]["value"] == pytest.approx(2 / 3)  # 0.4 is under it too
    assert judged_values.summary(found) == {
        "orm_auroc_within": 0.5,
        "sorm_f1": pytest.approx(2 * (2 / 3) / (1 + 2 / 3)),
    }


def test_the_better_generator_is_the_one_that_was_right_more_often_on_train():
    assert metrics()["generator"]["value"] == 0.5  # G is right 2 of 3 times, H 1 of 2: p rightly, q wrongly
    unknown = [item("p", 0.5, True, "G"), item("p", 0.6, False, "nobody has seen it")]
    assert metrics(unknown)["generator"]["value"] == 1.0  # 2 of 3 against one half


def test_tables_hold_both_models_and_the_rules_beside_them(capsys: pytest.CaptureFixture[str]):
    for part in judged_values.tables(metrics()):
        tables.wide_console().print(part)
    out = capsys.readouterr().out
    for shown in ("ORM, on the questions of test", "shorter is right", "right more often on train: AUROC 50.0 %",
                  "A step drawn at random", "Threshold 0.76 gave the best F1 on dev"):  # fmt: skip
        assert shown in out
