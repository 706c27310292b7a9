"""Verdicts on the paper's claims."""

from __future__ import annotations

import pytest

from glore_jax.evaluation import claims
from glore_jax.evaluation.claims import ABOVE, AT_LEAST, SURELY_ABOVE, Claim
from glore_jax.evaluation.metrics import DIFFERENCES

OPEN = "(interval includes the bound)"


@pytest.mark.parametrize(
    ("asks", "value", "low", "high", "expected"),
    [
        (AT_LEAST, 0.10, 0.09, 0.12, "holds"),
        (AT_LEAST, 0.08, 0.08, 0.08, "holds"),
        (AT_LEAST, 0.10, 0.07, 0.12, f"holds {OPEN}"),
        (AT_LEAST, 0.07, 0.05, 0.09, f"fails {OPEN}"),
        (AT_LEAST, 0.05, 0.04, 0.06, "fails"),
        (ABOVE, 0.08, 0.08, 0.08, f"fails {OPEN}"),
        (ABOVE, 0.09, 0.07, 0.10, f"holds {OPEN}"),
        (SURELY_ABOVE, 0.10, 0.09, 0.12, "holds"),
        (SURELY_ABOVE, 0.10, 0.07, 0.12, f"fails {OPEN}"),
        (SURELY_ABOVE, 0.05, 0.04, 0.06, "fails"),
        (AT_LEAST, None, None, None, "not measured"),
    ],
)
def test_verdict(asks, value, low, high, expected):
    assert claims.verdict(Claim(1, "row", "text", 0.08, asks), value, low, high) == expected


def test_every_one_of_the_six_claims_is_checked_and_none_is_hidden():
    checked = claims.check({})
    assert {claim["number"] for claim in checked if not claim["beside"]} == {1, 2, 3, 4, 5, 6}
    assert all(claim["verdict"] == "not measured" for claim in checked)


def test_claims_name_rows_that_exist():
    single = {"sorm_label_accuracy", "global_fix_rate", "local_fix_rate", "union_fix_rate"}
    assert {claim.row for claim in claims.CLAIMS} <= set(DIFFERENCES) | single


def test_the_sentence_on_the_gap_names_all_three_figures():
    names = ("sorm_minus_orm_step_accuracy", "sorm_minus_orm_step_accuracy_tuned", "sorm_minus_orm_step_auroc")
    rows = {
        name: {"value": value, "low": 0.0, "high": 1.0} for name, value in zip(names, (0.1, -0.02, 0.005), strict=True)
    }
    note = claims.check(rows)[0]["note"]
    assert "+10.0" in note and "-2.0" in note and "+0.5" in note
    assert claims.remaining_gap({names[0]: rows[names[0]]}) == ""
