"""The report stage, and reports printed again or pooled over several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glore_jax import files, goodput, workfolder
from glore_jax.errors import InputError
from glore_jax.evaluation import judged_values, page, pooling, tables
from glore_jax.evaluation.runs import Run
from glore_jax.pipeline import StageContext
from glore_jax.records import Case
from glore_jax.stages import artifacts, label_report

MEASURES = "measures"  # the last stage of the recipe traces_value
TRAINED = (
    "sft",
    "expert_iteration",
    "orm",
    "orm_balanced",
    "sorm",
    "global_refiner",
    "local_refiner",
    "value_refiner",
)


def _read(workdir: Path) -> Run:
    """A finished run, from its work folder."""
    config = workfolder.read_config(workdir)
    if config.get("recipe") != "glore":
        raise InputError(f"{workdir}: a run of the recipe {config.get('recipe')}; only runs of glore can be pooled")
    missing = [name for name in ("test", "tuning", "labels", *TRAINED) if not (workdir / name).is_dir()]
    if missing:
        raise InputError(f"{workdir}: the stages {', '.join(missing)} are not done; finish it with `glore run`")
    return Run(
        cases=files.read_table(workdir / "test" / "cases.parquet", Case),
        thresholds=files.read_json(workdir / "tuning" / "thresholds.json"),
        label_audit=files.read_json(workdir / "labels" / "audit.json"),
        training_curves={name: files.read_json(workdir / name / artifacts.CURVE) for name in TRAINED},
        info={
            "config": config,
            "revision": _revision(workdir),
            "workdir": workdir.name,
            "time": goodput.line(goodput.of_stages(workdir)),
        },
        ranker=config["evaluation"].get("ranker", "orm"),  # work folders of before it could be chosen lack the key
    )


def _revision(workdir: Path) -> str:
    """The revision that walked the test problems; the table is of that code, not of today's."""
    manifest = workfolder.read_manifest(workdir / "test", "test") or {}
    return str(manifest.get("revision", ""))


def stage(context: StageContext) -> dict[str, Any]:
    """Writes metrics.json and the page."""
    for name in context.stage.inputs:
        context.input(name)
    run = _read(context.workdir)
    page.write_report(context.folder, run)
    return {"problems": len(run.cases)}


def print_report(workdir: Path) -> bool:
    """Prints the tables of a finished run and where they lie; False where there are none (the recipe base)."""
    path, measures = (workdir / name / "metrics.json" for name in ("report", MEASURES))
    exported = workdir / "export"
    if path.exists():
        tables.print_report(files.read_json(path))
        print(f"\n{goodput.line(goodput.of_stages(workdir))}")
        print(f"\nThe page: {path.with_name('index.html').resolve()}")
    elif measures.exists():
        console = tables.wide_console()
        for part in judged_values.tables(files.read_json(measures)):
            console.print(part)
        print(f"\n{goodput.line(goodput.of_stages(workdir))}")
        print(f"\nThe figures: {measures.resolve()}")
    elif exported.exists():
        label_report.print_labels(workdir)
        print(f"\n{goodput.line(goodput.of_stages(workdir))}")
        print(f"\nThe labels: {exported.resolve()}")
    return path.exists() or measures.exists() or exported.exists()


def report(folders: Sequence[Path], output: Path | None = None) -> None:
    """Prints one run's report again, or pools several; with `output` also writes a Markdown page.

    Raises:
      InputError: a run is not finished.
    """
    if len(folders) == 1 and output is None:
        if not print_report(Path(folders[0])):
            raise InputError(f"{folders[0]}: holds no report; finish the run with `glore run`")
        return
    runs = [_read(Path(folder)) for folder in folders]
    pooled = pooling.pool(runs)
    tables.print_report(pooled)
    if output is not None:
        made_by = sorted({str(run.info["revision"]) for run in runs})
        command = " ".join(["glore report", *map(str, folders)])
        files.write_text(output, tables.markdown(pooled, output.stem, command, ", ".join(made_by)))
        print(f"\nWritten: {output}")
