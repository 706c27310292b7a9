"""The recipe that makes the base model, small: what it makes is what the other recipe takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import smoke_run


@pytest.mark.slow
def test_a_base_model_is_made_and_taken(tmp_path: Path):
    config = smoke_run.ROOT / "configs" / "arithmetic_base.py"
    made = smoke_run.glore("run", f"--config={config}:smoke", f"--workdir={tmp_path / 'base'}")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "base" / "base_model"
    assert json.loads((folder / "card.json").read_text())["dev_problems"] == 32
    assert (folder / "model.safetensors").stat().st_size < 5e6  # what a package may carry

    run = [*smoke_run.command(tmp_path / "run"), f"--config.base.path={folder}"]
    for stage in ("problems", "base"):
        taken = smoke_run.call([*run, f"--only={stage}"])
        assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "run" / "base" / "tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()
    untrained = smoke_run.call(run)  # three steps teach nothing
    assert untrained.returncode == 2
    assert "never right on train" in untrained.stderr
