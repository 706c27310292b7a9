"""The report page: one self-contained HTML file, and the report folder it lies in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from glore_jax import files
from glore_jax.decisions import system
from glore_jax.evaluation import tables
from glore_jax.evaluation.metrics import evaluate
from glore_jax.evaluation.plots import all_plots, training_plots
from glore_jax.evaluation.runs import Run
from glore_jax.rankers import final_value
from glore_jax.records import Candidate, Case

Choose = Callable[[Case], Candidate]

NUM_BROWSED = 60
TEMPLATE = Path(__file__).with_name("page.html.j2")
CATEGORIES = {
    "fixed": "draft wrong, system right",
    "harmed": "draft right, system wrong",
    "unfixed": "draft wrong, system wrong",
    "right": "draft right, system right",
}
_REFINEMENT_TITLES = {
    "global": "global refinement",
    "local": "local refinement",
    "local_oracle": "local refinement, step named by the oracle",
    "value_conditioned": "value-conditioned refinement",
}


def category(case: Case, choose: Choose) -> str:
    """Which of CATEGORIES a case falls into, by what the system chooses."""
    before, after = case.draft.solution.right, choose(case).solution.right
    if before:
        return "right" if after else "harmed"
    return "fixed" if after else "unfixed"


def pick(cases: Sequence[Case], choose: Choose, limit: int = NUM_BROWSED) -> list[tuple[str, Case]]:
    """Up to `limit` (category, case), in turn from each category, so that rare ones are seen; cases in order."""
    waiting: dict[str, list[int]] = {name: [] for name in CATEGORIES}
    for i, case in enumerate(cases):
        waiting[category(case, choose)].append(i)
    rank = {i: place for indices in waiting.values() for place, i in enumerate(indices)}
    names = {i: name for name, indices in waiting.items() for i in indices}
    taken = sorted(sorted(rank, key=lambda i: (rank[i], i))[:limit])
    return [(names[i], cases[i]) for i in taken]


def steps_of(candidate: Candidate, model: str) -> list[dict[str, Any]]:
    """The steps of a solution with their value and the oracle's verdict.

    `mark` is `true`, `false` (the first false step), `after` (anything after it) or None without an oracle;
    `value` is None where the model did not score the solution.
    """
    values, false = candidate.values.get(model, ()), candidate.first_false
    steps = []
    for i, text in enumerate(candidate.solution.steps):
        mark = None
        if false is not None:
            mark = "true" if false == -1 or i < false else "false" if i == false else "after"
        steps.append({"text": text, "value": values[i] if i < len(values) else None, "mark": mark})
    return steps


def _answer(title: str, candidate: Candidate, choice: Candidate) -> dict[str, Any]:
    return {
        "title": title,
        "steps": steps_of(candidate, "sorm"),
        "right": candidate.solution.right,
        "finished": candidate.solution.finished,
        "orm": final_value(candidate) if "orm" in candidate.values else None,
        "chosen": candidate is choice,
    }


def browsed(name: str, case: Case, choose: Choose) -> dict[str, Any]:
    """What the page shows of one test problem."""
    choice = choose(case)
    rewrites = [
        _answer(title, case.refinements[key], choice)
        for key, title in _REFINEMENT_TITLES.items()
        if key in case.refinements
    ]
    return {
        "id": case.problem.id,
        "category": name,
        "question": case.problem.question,
        "answer": case.problem.answer,
        "located": case.located,
        "draft": _answer("draft", case.draft, choice),
        "rewrites": rewrites,
    }


def render(metrics: Mapping[str, Any], run: Run) -> str:
    """The page as HTML. Everything that a model or a user wrote is escaped; nothing is loaded from anywhere."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=tables.figure, points=partial(tables.figure, signed=True), over=tables.over, signed=tables.is_difference
    )
    environment.globals.update(span=tables.span)
    plots = [{**plot, "svg": Markup(plot["svg"])} for plot in all_plots(metrics["curves"])]
    losses = [{**plot, "svg": Markup(plot["svg"])} for plot in training_plots(metrics["curves"]["training"])]

    def choose(case: Case) -> Candidate:
        return system(case, run.thresholds["rank_margin"], run.ranker)

    facts = {key: value for key, value in run.info.items() if key != "config"}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metrics=metrics,
        rows={row["name"]: row for row in metrics["rows"]},
        headings=list(tables.by_heading(metrics)),
        plots=plots,
        losses=losses,
        categories=CATEGORIES,
        cases=[browsed(name, case, choose) for name, case in pick(run.cases, choose)],
        thresholds=dict(sorted(run.thresholds.items())),
        facts=facts,
        config=json.dumps(run.info.get("config", {}), indent=2, default=str),
    )


def write_report(folder: Path, run: Run) -> dict[str, Any]:
    """Writes `metrics.json`, `claims.md` and `index.html`, each whole or not at all.

    Returns:
      What metrics.json holds (`metrics.evaluate`).
    """
    metrics = evaluate([run])
    page = render(metrics, run)
    files.write_json(folder / "metrics.json", metrics)
    files.write_text(folder / "claims.md", tables.claims_markdown(metrics))
    files.write_text(folder / "index.html", page)
    return metrics
