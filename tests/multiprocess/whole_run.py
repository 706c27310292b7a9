"""The whole pipeline, every stage of it, as small as it can be. As a script: `glore`, with a watch quick to miss."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from glore_jax import cli, files, goodput
from glore_jax.parallel import watch
from glore_jax.stages import recipes, rollout_parts

ROOT = Path(__file__).parents[2]
SCRIPT = str(Path(__file__))
STAGES = [stage.name for stage in recipes.GLORE]
LIMIT = 20.0  # seconds of silence after which a process is missed
STEPS = 5
LANGUAGE, VALUE = ("sft", "expert_iteration", "refiner"), ("orm", "sorm")
SHRUNK = {
    "devices": 1,
    "train_dtype": "float32",  # Adam makes whole steps of what is nothing but the rounding of bfloat16
    "task.train": 24,
    "task.dev": 4,
    "task.test": 4,
    "sampling.slots": 16,
    "sampling.sources": 8,
    "sampling.buckets": "112,432",
    "labels.problems": 12,
    # Trainings of one kind are alike, so that each kind is compiled once, and save every step.
    **{f"{group}.train.{key}": value for group in (*LANGUAGE, *VALUE) for key, value in (
        ("steps", STEPS), ("epochs", 1.0), ("rows", 4), ("optimizer", "adamw"), ("learning_rate", 0.001),
        ("checkpoint_seconds", 0))},
    **{f"{group}.train.row_length": 448 for group in LANGUAGE},
    **{f"{group}.train.row_length": 256 for group in VALUE},
}  # fmt: skip


def command(workdir: Path, *more: str) -> list[str]:
    """Words for `processes.Job`."""
    config = ROOT / "configs" / "arithmetic.py"
    changes = [f"--config.{key}={value}" for key, value in SHRUNK.items()]
    return [SCRIPT, "run", f"--config={config}:smoke", f"--workdir={workdir}", *changes, *more]


def folders(workdir: Path) -> list[str]:
    """Names of the folders of stages, which have a manifest each."""
    return sorted(path.parent.name for path in workdir.glob(f"*/{files.MANIFEST}"))


def results(workdir: Path) -> dict[str, bytes]:
    """Bytes of what stages hand on: tables, models, thresholds, metrics. (Manifests and round.json hold rates.)"""
    paths = [p for p in workdir.rglob("*") if p.suffix in (".parquet", ".safetensors", ".json", ".model")]
    paths = [p for p in paths if p.relative_to(workdir).parts[0] != goodput.METRICS]
    return {str(p.relative_to(workdir)): p.read_bytes() for p in paths if p.name not in (files.MANIFEST, "round.json")}


def under_way(said: str) -> str:
    """The stage that a run has begun last, by what it printed; "" before the first."""
    return (re.findall(r"^\[\d+/\d+\] (\w+): ", said, re.MULTILINE) or [""])[-1]


def prepare() -> None:
    watch.LIMIT = LIMIT
    rollout_parts._FEWEST = 2  # so that every process has a part


if __name__ == "__main__":
    prepare()
    sys.exit(cli.main())
