"""The way of a published model, end to end: real rows, a published tokenizer, a Hugging Face folder; random weights."""

from __future__ import annotations

from pathlib import Path

import public_data
import pytest
import smoke_run

from glore_jax import files, stages
from glore_jax.models import random_folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_stage_runs_on_real_rows(tmp_path: Path):
    tokenizer = public_data.folder("tokenizers") / "mistral_v1.model"
    base = random_folder.write(tmp_path / "base", tokenizer, d_model=64, num_layers=2, head_dim=16, d_ff=192)
    workdir = tmp_path / "run"
    done = smoke_run.glore(
        "run",
        f"--config={smoke_run.ROOT / 'configs' / 'gsm8k_tiny.py'}",
        f"--workdir={workdir}",
        f"--config.base.path={base}",
        f"--config.task.manual_dir={public_data.folder('gsm8k')}",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    made = {stage.name: files.read_json(workdir / stage.name / "manifest.json") for stage in stages.recipes.GLORE}
    assert made["base"]["counts"]["vocabulary"] == 32_013  # 13 marks after the tokenizer's own
    assert made["traces"]["counts"]["right"] > 0  # by heart
    assert 0 < made["labels"]["counts"]["positive"] < 1
    rows = {row["name"]: row["value"] for row in files.read_json(workdir / "report" / "metrics.json")["rows"]}
    assert 0 <= rows["student_accuracy"] <= 1
    assert rows.get("sorm_step_accuracy") is None  # nobody knows the first false step
