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
    done = sorted(p.name for p in (tmp_path / "base").iterdir() if p.is_dir())
    assert done == ["base_model", "pretrain_long", "pretrain_medium", "pretrain_notes", "pretrain_short", "tokenizer"]
    folder = tmp_path / "base" / "base_model"
    assert json.loads((folder / "card.json").read_text())["dev_problems"] == 32
    assert (folder / "model.safetensors").stat().st_size < 5e6  # what a package may carry

    for stage in ("problems", "base"):
        options = [f"--config.base.path={folder}", f"--only={stage}"]
        taken = smoke_run.call(smoke_run.command(tmp_path / "run", *options))
        assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "run" / "base" / "tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_the_shipped_base_model_can_be_made_again(tmp_path: Path):
    """The whole training, from nothing: about 20 minutes on two cores."""
    shipped = json.loads((smoke_run.ROOT / "glore_jax" / "assets" / "arithmetic_base" / "card.json").read_text())
    made = smoke_run.glore(
        "run", f"--config={smoke_run.ROOT / 'configs' / 'arithmetic_base.py'}", f"--workdir={tmp_path / 'base'}"
    )
    assert made.returncode == 0, made.stderr
    again = json.loads((tmp_path / "base" / "base_model" / "card.json").read_text())
    assert again["dev_problems"] == shipped["dev_problems"]
    assert abs(again["dev_accuracy"] - shipped["dev_accuracy"]) <= 0.02
