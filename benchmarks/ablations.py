"""What the options that the field has found since are worth on the embedded task, each beside the paper's way.

python benchmarks/ablations.py runs/full/seed0 runs/full/seed1 runs/full/seed2 --output=docs/results/ablations.md

Takes finished runs of configs/arithmetic.py, copies each and makes the labels and the SORM again in the copies, with
one key changed at a time; the copies lie in runs/ablations and are used again. All is measured on dev problems: on
their drafts, judged by the oracle, and on the system's choice among draft, global and local rewrite. Where a figure
needs a threshold, that of one half of the problems is chosen on the other half. Differences are paired, on the same
resampled problems. About six minutes a run on two cores; prints a table and, last, JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from glore_jax import cli, decisions, files, pipeline, workfolder
from glore_jax.evaluation import statistics
from glore_jax.evaluation.statistics import Auroc, Statistic, Sums
from glore_jax.evaluation.value_models import location_sums, prefix_truth
from glore_jax.method import refinement, reward_models
from glore_jax.rankers import RANKERS, SCORES
from glore_jax.records import Case
from glore_jax.stages import artifacts, recipes
from glore_jax.text import pretrained

LABELS: dict[str, dict[str, Any]] = {
    "the share of right rollouts (soft labels)": {"sorm.target": "share"},
    "the ratio of shares from step to step (relative labels)": {"sorm.target": "ratio"},
    "any, and 8 more at the boundary (adaptive K)": {"labels.boundary_rollouts": 8},
}
PAPER = "whether any rollout is right (the paper's)"


@dataclasses.dataclass(frozen=True)
class Dev:
    """The dev problems of all runs: cases, and for each the number of its run."""

    cases: Sequence[Case]
    run: Sequence[int]


def read(folders: Sequence[Path]) -> Dev:
    cases = [files.read_table(folder / "tuning" / "cases.parquet", Case) for folder in folders]
    return Dev([c for found in cases for c in found], [i for i, found in enumerate(cases) for _ in found])


def with_labels(folder: Path, target: Path, changes: dict[str, Any]) -> Path:
    """A copy of a run in which the SORM, and the labels where they read a changed key, are made again."""
    config = ConfigDict(workfolder.read_config(folder))
    config.update_from_flattened_dict(changes)
    if not target.is_dir():
        shutil.copytree(folder, target.with_suffix(".partial"), dirs_exist_ok=True)
        files.write_json(target.with_suffix(".partial") / workfolder.CONFIG, config.to_dict())
        target.with_suffix(".partial").rename(target)
    states = {state.stage.name: state.state for state in pipeline.states(config, target, recipes.GLORE)}
    for stage in ("labels", "sorm"):
        if states[stage] != "done":
            pipeline.run(config, target, recipes.GLORE, only=stage)
    return target


def sorm_values(folder: Path, cases: Sequence[Case]) -> list[tuple[float, ...]]:
    """What the SORM of a run says about the drafts of dev."""
    tokenizer = pretrained.reopen(folder / "base")
    problems = {case.problem.id: case.problem for case in cases}
    model, params = artifacts.read_model(folder / "sorm", "float32")
    return reward_models.score(model, params, tokenizer, problems, [case.draft.solution for case in cases])


def step_auroc(dev: Dev, values: Sequence[Sequence[float]]) -> Statistic:
    items = [
        (i, dev.run[i], value, truth)
        for i, case in enumerate(dev.cases)
        for value, truth in zip(values[i], prefix_truth(case.draft), strict=True)
    ]
    owner, run, scores, truth = np.array(items, float).T
    return Auroc(scores, truth.astype(bool), owner.astype(int), run)


def halves(dev: Dev) -> list[tuple[list[int], list[int]]]:
    """For each run and half of its problems: those that are measured, and those that choose the threshold."""
    members = [[i for i, run in enumerate(dev.run) if run == number] for number in range(max(dev.run) + 1)]
    return [(rows[half::2], rows[1 - half :: 2]) for rows in members for half in (0, 1)]


def first_error_f1(dev: Dev, values: Sequence[Sequence[float]]) -> Statistic:
    """ProcessBench's F1, each half of the problems at the threshold that is best on the other half."""
    located = [-1] * len(dev.cases)
    truth = [-1 if case.draft.first_false is None else case.draft.first_false for case in dev.cases]
    for measured, others in halves(dev):
        known = [values[i] for i in others], [truth[i] for i in others]
        threshold = decisions.best_threshold(lambda t, k=known: refinement.first_error_f1(*k, t))
        for i in measured:
            located[i] = decisions.first_below(values[i], threshold)
    return Sums(location_sums(located, truth), statistics.harmonic)


def system_accuracy(dev: Dev, ranker: str) -> Statistic:
    """Right answers of the system, each half of the problems at the margin that is best on the other half."""
    right = np.zeros((len(dev.cases), 2))
    for measured, others in halves(dev):
        margin = refinement.decision_thresholds([dev.cases[i] for i in others], ranker)["rank_margin"]
        for i in measured:
            right[i] = decisions.system(dev.cases[i], margin, ranker).solution.right, 1
    return Sums(right)


def label_accuracy(folders: Sequence[Path]) -> list[float]:
    """Of each run: the share of its labels that the oracle agrees with. Soft ones are positive where these are."""
    totals = [files.read_json(folder / "labels" / "audit.json")["sorm_label_accuracy"] for folder in folders]
    return [total["correct"] / total["count"] for total in totals]


def compared(weights: np.ndarray, statistic: Statistic, base: Statistic) -> dict[str, Any]:
    """A figure, and by how much it is above that of the paper's way, with its interval."""
    units = weights.shape[1]
    gap = statistics.interval(
        statistics.point(statistic, units) - statistics.point(base, units), statistic(weights) - base(weights)
    )
    return {"value": statistics.point(statistic, units), "gain": gap.value, "low": gap.low, "high": gap.high}


def ablate(folders: Sequence[Path], copies: Path) -> dict[str, dict[str, Any]]:
    """Every row of the table: figures by the option's name."""
    dev = read(folders)
    weights = statistics.resample_weights([case.problem.question for case in dev.cases])
    measures: dict[str, Callable[[Dev, Any], Statistic]] = {"step_auroc": step_auroc, "first_error_f1": first_error_f1}
    made: dict[str, list[Path]] = {PAPER: list(folders)}
    for name, changes in LABELS.items():
        word = "-".join(str(part).replace(".", "_") for pair in changes.items() for part in pair)
        made[name] = [with_labels(f, copies / f"{f.parent.name}-{f.name}-{word}", changes) for f in folders]
    values: dict[str, list] = {}
    for name, runs in made.items():
        mine = [[c for c, run in zip(dev.cases, dev.run, strict=True) if run == number] for number in range(len(runs))]
        values[name] = [v for run, cases in zip(runs, mine, strict=True) for v in sorm_values(run, cases)]
    rows: dict[str, dict[str, Any]] = {}
    for name, runs in made.items():
        rows[name] = {"label_accuracy": sum(label_accuracy(runs)) / len(runs)} | {
            key: compared(weights, measure(dev, values[name]), measure(dev, values[PAPER]))
            for key, measure in measures.items()
        }
    paper = system_accuracy(dev, "orm")
    for ranker in RANKERS:
        rows[ranker] = {"system_accuracy": compared(weights, system_accuracy(dev, ranker), paper)}
    return rows


def markdown(rows: dict[str, dict[str, Any]], folders: Sequence[Path], problems: int, revision: str) -> str:
    def figure(found: dict[str, Any], base: bool) -> str:
        gain = (found["gain"], found["low"], found["high"])
        apart = "" if base else " ({}, {} to {})".format(*("–" if x is None else f"{100 * x:+.1f}" for x in gain))
        return f"{100 * found['value']:.1f}{apart}"

    lines = [
        "# Options beside the paper's way",
        "",
        f"Command: `python benchmarks/ablations.py {' '.join(map(str, folders))}`  ",
        f"Revision: `{revision}`  ",
        f"{problems} dev problems, {len(folders)} run(s). Percent; in brackets points above the paper's way, with a "
        "95 % interval.",
        "",
        "| the SORM learns | labels right | step AUROC | first-error F1 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in (PAPER, *LABELS):
        row, base = rows[name], name == PAPER
        cells = figure(row["step_auroc"], base), figure(row["first_error_f1"], base)
        lines.append(f"| {name} | {100 * row['label_accuracy']:.1f} | {cells[0]} | {cells[1]} |")
    lines += ["", "| the system keeps the candidate of the highest | right answers |", "| --- | ---: |"]
    for ranker in RANKERS:
        lines.append(f"| {SCORES[ranker]} (`{ranker}`) | {figure(rows[ranker]['system_accuracy'], ranker == 'orm')} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="work folders of finished runs")
    parser.add_argument("--copies", type=Path, default=Path("runs/ablations"), help="where the copies lie")
    parser.add_argument("--output", type=Path, help="a Markdown page")
    options = parser.parse_args()
    cli.prepare_jax(ConfigDict(workfolder.read_config(options.runs[0])))
    rows = ablate(options.runs, options.copies)
    page = markdown(rows, options.runs, len(read(options.runs).cases), workfolder.git_revision())
    print(page)
    if options.output:
        files.write_text(options.output, page)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
