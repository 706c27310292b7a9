"""Value models trained on judged solutions, on the questions that were kept from them.

The ORM is measured on final answers (WHEN, `final_values.py`), the SORM on first false steps (WHERE,
`first_errors.py`), both on test, at thresholds chosen on dev. Beside them stand rules that read no solution: the
shorter one is right; a random step is the first error; and, within a question, the solution of the better generator
is right. The last one is the bar where solutions are of several generators: how somebody writes is easily read, and
says who it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from glore_jax.evaluation import final_values, first_errors
from glore_jax.evaluation.predictions import Predicted
from glore_jax.evaluation.tables import figure, span
from glore_jax.evaluation.value_models import TITLES
from glore_jax.records import Judged

MODULES = {"when": final_values, "where": first_errors}
DEFINITIONS = {
    **final_values.DEFINITIONS,
    **first_errors.DEFINITIONS,
    "generator": "AUROC within a question of the rule that the solution is right whose generator had the higher share "
    "of right answers on train.",
}


def measure(items: Mapping[str, Mapping[str, Sequence[Predicted]]], train: Sequence[Judged]) -> dict[str, Any]:
    """All figures.

    Args:
      items: by kind of verdict (`when`: values of the ORM, `where`: of the SORM) and split (`dev`, `test`).
      train: solutions with final labels, from which the generators are known.

    Returns:
      `when` and `where`: what `final_values.measure` and `first_errors.measure` return; `generator`: an AUROC with its
      interval; `definitions`.
    """
    found = {
        kind: MODULES[kind].measure(splits["test"], MODULES[kind].tune(splits["dev"])) for kind, splits in items.items()
    }
    test = [item.judged for item in items["when"]["test"]]
    return found | {"generator": _generators(train, test), "definitions": DEFINITIONS}


def _generators(train: Sequence[Judged], test: Sequence[Judged]) -> dict[str, float | None]:
    """AUROC within a question of the generators' shares of right answers on train; one half for an unknown one."""
    answers: dict[str, list[bool]] = defaultdict(list)
    for judged in train:
        answers[judged.generator].append(bool(judged.right))
    shares = {name: sum(right) / len(right) for name, right in answers.items()}
    return final_values.within([Predicted(judged, (shares.get(judged.generator, 0.5),)) for judged in test])


def summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figure that each model is there for: of the ORM within a question, of the SORM over all solutions."""
    where = metrics["where"]
    whole = [row for row in where["rows"] if row["group"] == "all" and row["threshold"] == where["threshold"]]
    return {"orm_auroc_within": metrics["when"]["rows"][-1]["auroc"]["value"], "sorm_f1": whole[0]["f1"]["value"]}


def tables(metrics: Mapping[str, Any]) -> Iterator[Table | Text]:
    """What `measure` found, to print."""
    for kind, model in (("when", "orm"), ("where", "sorm")):
        yield Text(f"\n{TITLES[model]}, on the questions of test", style="bold")
        yield from MODULES[kind].tables(metrics[kind])
        if kind == "when":
            known = metrics["generator"]
            yield Text(
                "Within a question, the solution of the generator that was right more often on train: AUROC "
                f"{figure(known['value'])} % ({span(known['low'], known['high'])})."
            )
