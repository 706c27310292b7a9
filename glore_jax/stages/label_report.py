"""`glore label-report`: what the step labels of a run, or of `glore label`, are worth."""

from __future__ import annotations

import functools
from pathlib import Path

from glore_jax import files, workfolder
from glore_jax.errors import InputError
from glore_jax.evaluation import label_reports, tables
from glore_jax.method import labels
from glore_jax.records import Problem, Solution, StepLabels
from glore_jax.stages.rollout_parts import RolloutParts


def print_labels(workdir: Path) -> None:
    """Prints the report of a work folder whose stage `labels` is done.

    Raises:
      InputError: it is no work folder, its labels are not made, or they are no labels of rollouts.
    """
    config = workfolder.read_config(workdir)
    folder = workdir / "labels"
    manifest = workfolder.read_manifest(folder, "labels")
    if manifest is None:
        raise InputError(f"{folder}: the labels are not made; go on with the command that began {workdir}")
    workfolder.verify(folder, manifest, content=True)
    audit = files.read_json(folder / "audit.json") if (folder / "audit.json").is_file() else {}
    if "rates" not in audit:
        raise InputError(f"{folder}: no audit of rollouts; expected the work folder of `glore run` or `glore label`")
    problems = {p.id: p for p in files.read_table(workdir / "problems" / "train.parquet", Problem)}
    console = tables.wide_console()
    for part in label_reports.parts(
        audit,
        problems,
        files.read_table(folder / "traces.parquet", Solution),
        files.read_table(folder / "labels.parquet", StepLabels),
        RolloutParts(folder),
        functools.partial(labels.uses_prefix, reading=config["labels"]["consistency"]),
    ):
        console.print(part)
