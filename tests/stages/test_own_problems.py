"""A user's own problems through the whole pipeline, without an oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import smoke_run
from handmade import EVEN_WEIGHTS

from glore_jax import files
from glore_jax.tasks.arithmetic import make_problem

NEEDS_AN_ORACLE = ("sorm_step_accuracy", "sorm_first_error_f1", "sorm_label_accuracy", "local_fix_rate_oracle_critique")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_own_problems_go_all_the_way(tmp_path: Path):
    problems = [make_problem(0, "train", i, EVEN_WEIGHTS) for i in range(240)]
    rows = [{"question": p.question, "answer": p.answer, "solution": p.solution} for p in problems]
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = smoke_run.ROOT / "configs" / "jsonl.py"
    workdir = tmp_path / "run"
    words = ("run", f"--config={config}:smoke", f"--config.task.train={source}", f"--workdir={workdir}")
    done = smoke_run.glore(*words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    named = {row["name"]: row for row in files.read_json(workdir / "report" / "metrics.json")["rows"]}
    assert not set(NEEDS_AN_ORACLE) & {name for name, row in named.items() if row["value"] is not None}
    for name in ("student_accuracy", "system_accuracy", "global_fix_rate", "orm_final_accuracy", "best_of_3_accuracy"):
        assert 0 <= named[name]["value"] <= 1
    assert (workdir / "report" / "index.html").stat().st_size > 10_000

    source.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    again = smoke_run.glore(*words, "--only=report")  # made from other problems than the file now has
    assert again.returncode == 2
    assert "problems: out of date" in again.stderr
