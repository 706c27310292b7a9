"""The whole pipeline under several processes: what it makes, and how it is preempted."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import whole_run
from processes import Job, run
from safetensors.numpy import load_file
from whole_run import STAGES

from glore_jax import files, goodput
from glore_jax.stages import artifacts, recipes
from glore_jax.training import resuming

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SCRIPT = str(Path(__file__).with_name("stage_by_stage.py"))
TRAIN = {stage.name for stage in recipes.GLORE if "train_dtype" in stage.config_keys}
TOLERANCE = 1e-5  # of parameters
ROUNDED = (artifacts.MODEL, artifacts.CURVE, "round.json")  # of stages that train; the last two hold losses and rates


@pytest.mark.parametrize("processes", [2, 4])
def test_a_whole_run_ends_well(uncut: Callable[[int], Path], processes: int):
    workdir, alone = uncut(processes), uncut(1)
    assert not list(workdir.glob(f"*{files.PARTIAL}"))
    one, many = whole_run.results(alone), whole_run.results(workdir)
    assert set(one) == set(many)


@pytest.mark.parametrize("processes", [2, 4])
def test_every_stage_makes_of_the_same_what_one_process_makes(
    tmp_path: Path, uncut: Callable[[int], Path], processes: int, capsys: pytest.CaptureFixture[str]
):
    """Samples, rollouts, labels, pairs and tables to the last bit; parameters but for rounding."""
    alone = uncut(1)
    run(processes, [SCRIPT, str(alone), str(tmp_path)])
    alike, farthest = 0, dict.fromkeys(TRAIN, 0.0)
    for stage in STAGES:
        names = [
            {str(p.relative_to(top)) for p in (top / stage).rglob("*") if p.is_file()} for top in (alone, tmp_path)
        ]
        assert names[0] == names[1]
        for name in sorted(names[0]):
            if Path(name).name == files.MANIFEST:
                continue
            if stage in TRAIN and Path(name).name in ROUNDED:
                if Path(name).name == artifacts.MODEL:
                    farthest[stage] = max(farthest[stage], distance(alone / name, tmp_path / name))
                continue
            assert content(alone / name) == content(tmp_path / name), name
            alike += 1
    with capsys.disabled():
        print(f"\n{processes} processes: {alike} files equal to the bit; parameters differ by at most", end=" ")
        print(", ".join(f"{stage} {found:.1e}" for stage, found in farthest.items()), flush=True)
    assert max(farthest.values()) < TOLERANCE


def content(path: Path) -> bytes:
    """What a file says; a page but for what it tells of the run itself."""
    found = path.read_bytes()
    return re.sub(rb"<dt class=\"soft\">(workdir|time)</dt><dd>.*?</dd>", b"", found, flags=re.DOTALL)


def distance(one: Path, other: Path) -> float:
    """The largest difference between numbers of two models."""
    models = [load_file(path) for path in (one, other)]
    assert models[0].keys() == models[1].keys()
    return max(float(np.abs(models[0][name] - models[1][name]).max()) for name in models[0])


def test_preempted_processes_save_a_common_step_and_go_on(tmp_path: Path, uncut: Callable[[int], Path]):
    """SIGTERM to both, and to either one; in trainings that would not save by themselves, and in a sampling."""
    workdir = tmp_path / "run"
    never = [f"--config.{group}.train.checkpoint_seconds=3600" for group in (*whole_run.LANGUAGE, *whole_run.VALUE)]
    words = whole_run.command(workdir, *never)
    written = {name: f"{goodput.METRICS}/{name}/train/metrics.jsonl" for name in ("sft", "orm", "sorm")}
    preempt(words, (0, 1), workdir, "sft", written["sft"])
    preempt(words, (1,), workdir, "traces", "traces.partial/checkpoint/samples/*/*.msgpack")
    preempt(words, (0,), workdir, "orm", written["orm"])
    preempt(words, (1,), workdir, "sorm", written["sorm"])
    run(2, words)
    for name in written.values():
        steps = [json.loads(line)["step"] for line in (workdir / name).read_text().splitlines()]
        assert steps == list(range(1, whole_run.STEPS + 1))
    found, expected = whole_run.results(workdir), whole_run.results(uncut(2))
    del found["config.json"], expected["config.json"]  # they save at other times
    assert found == expected


def preempt(words: list[str], signalled: tuple[int, ...], workdir: Path, stage: str, sign: str) -> None:
    """Sends SIGTERM to some of two processes once a file of this name has something in it."""
    job = Job(2, words)
    while job.running() and not any(path.stat().st_size for path in workdir.glob(sign)):
        time.sleep(0.003)
    for n in signalled:
        job.processes[n].send_signal(signal.SIGTERM)
    first, second = job.wait()
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert f"stopped in stage {stage}; what is finished is kept" in first.out
    assert first.out.endswith("preempted\n")
    if stage in TRAIN:
        assert 0 < resuming.reached(workdir / f"{stage}{files.PARTIAL}" / "checkpoint" / "train") < whole_run.STEPS
