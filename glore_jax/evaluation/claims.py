"""The paper's six claims, checked against a report's rows: held or failed, never hidden."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

NOT_MEASURED = "not measured"
STRADDLES = "(interval includes the bound)"


AT_LEAST = "at least"  # the value reaches the bound
ABOVE = "above"  # the value exceeds the bound
SURELY_ABOVE = "surely above"  # the whole interval lies above the bound ("an interval that excludes zero")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One thing to check.

    Attributes:
      number: of the claim it belongs to, 1 to 6.
      row: the row that is compared with the bound.
      text: what is claimed.
      bound: what the row's value is held against.
      asks: AT_LEAST, ABOVE or SURELY_ABOVE.
      beside: printed with the claim so that nobody is fooled; not a part of what the paper claims.
    """

    number: int
    row: str
    text: str
    bound: float = 0.0
    asks: str = AT_LEAST
    beside: bool = False


CLAIMS = (
    Claim(1, "sorm_minus_orm_step_accuracy", "SORM leads the ORM in step accuracy at 0.5 by at least 8 points", 0.08),
    Claim(1, "sorm_minus_orm_first_error_f1", "SORM leads the ORM in first-error F1 at 0.5", 0.0, ABOVE),
    Claim(1, "sorm_minus_orm_step_accuracy_tuned", "SORM leads on steps, thresholds tuned on dev", 0.0, ABOVE, True),
    Claim(1, "sorm_minus_orm_step_auroc", "SORM leads on steps, threshold-free (AUROC)", 0.0, ABOVE, True),
    Claim(1, "sorm_minus_orm_first_error_f1_tuned", "SORM leads in F1, thresholds tuned on dev", 0.0, ABOVE, True),
    Claim(2, "orm_minus_sorm_final_accuracy", "the ORM is at least as good as the SORM on final answers at 0.5"),
    Claim(2, "orm_minus_sorm_final_auroc", "the same threshold-free (AUROC)", beside=True),
    Claim(3, "sorm_label_accuracy", "at least 94 % of SORM labels are right", 0.94),
    Claim(4, "global_fix_rate", "global refinement mends at least 28 % of wrong drafts", 0.28),
    Claim(4, "local_fix_rate", "local refinement mends at least 28 % of wrong drafts", 0.28),
    Claim(4, "union_fix_rate", "together they mend at least 41 % of wrong drafts", 0.41),
    Claim(5, "gated_minus_refine_all_global", "global: refining every draft is worse than with the gate", 0.0, ABOVE),
    Claim(5, "gated_minus_refine_all_local", "local: refining every draft is worse than with the gate", 0.0, ABOVE),
    Claim(6, "system_minus_gated_global", "the system beats global alone behind the gate", 0.0, SURELY_ABOVE),
    Claim(6, "system_minus_refine_all_global", "the system beats global alone on every draft", 0.0, SURELY_ABOVE),
    Claim(6, "system_minus_gated_local", "the system beats local alone behind the gate", 0.0, SURELY_ABOVE),
    Claim(6, "system_minus_refine_all_local", "the system beats local alone on every draft", 0.0, SURELY_ABOVE),
    Claim(6, "system_minus_best_of_3", "the system beats best of three under the same ORM", 0.0, SURELY_ABOVE),
    Claim(6, "system_minus_student", "the system lifts the student by at least 12 points", 0.12),
    Claim(6, "system_minus_reranked_global", "the system beats {draft, global} reranked", 0.0, SURELY_ABOVE, True),
    Claim(6, "system_minus_reranked_local", "the system beats {draft, local} reranked", 0.0, SURELY_ABOVE, True),
)


def verdict(claim: Claim, value: float | None, low: float | None, high: float | None) -> str:
    """`holds` or `fails`, and whether the interval leaves it open.

    >>> claim = Claim(2, "x", "x is at least 0", 0.0)
    >>> verdict(claim, 0.1, 0.05, 0.2), verdict(claim, 0.1, -0.1, 0.2), verdict(claim, -0.1, -0.2, -0.05)
    ('holds', 'holds (interval includes the bound)', 'fails')
    """
    if value is None or low is None or high is None:
        return NOT_MEASURED

    def passes(number: float) -> bool:
        return number >= claim.bound if claim.asks == AT_LEAST else number > claim.bound

    holds = passes(low) if claim.asks == SURELY_ABOVE else passes(value)
    if holds:
        return "holds" if passes(low) else f"holds {STRADDLES}"
    return f"fails {STRADDLES}" if high >= claim.bound else "fails"


def remaining_gap(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on what is left of claim 1's gap once thresholds are tuned or taken away; "" where unmeasured."""
    names = ("sorm_minus_orm_step_accuracy", "sorm_minus_orm_step_accuracy_tuned", "sorm_minus_orm_step_auroc")
    found = [rows[name]["value"] for name in names if name in rows and rows[name]["value"] is not None]
    if len(found) < len(names):
        return ""
    fixed, tuned, auroc = (100 * value for value in found)
    return (
        f"At the threshold of 0.5 the SORM is {fixed:+.1f} points from the ORM in balanced step accuracy; with each "
        f"model's own dev-tuned threshold {tuned:+.1f} points remain, and the threshold-free AUROC differs by "
        f"{auroc:+.1f} points. What tuning takes away is owed to where the values sit (calibration); the AUROC tells "
        "how much better the SORM orders right and wrong prefixes."
    )


def check(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each claim with its figures and verdict.

    Args:
      rows: the report's rows by name; a claim whose row is absent is `not measured` (no oracle, for one).

    Returns:
      For each: `number`, `row`, `text`, `bound`, `value`, `low`, `high`, `verdict`, `beside`, `note`.
    """
    checked = []
    for claim in CLAIMS:
        row = rows.get(claim.row, {})
        value, low, high = row.get("value"), row.get("low"), row.get("high")
        checked.append(
            {
                "number": claim.number,
                "row": claim.row,
                "text": claim.text,
                "bound": claim.bound,
                "value": value,
                "low": low,
                "high": high,
                "verdict": verdict(claim, value, low, high),
                "beside": claim.beside,
                "note": remaining_gap(rows) if claim.row == "sorm_minus_orm_step_accuracy" else "",
            }
        )
    return checked
