"""A job of several processes makes what one makes; one that a process's death has ended goes on in the same way."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import SECONDS, Job, run

from glore_jax import files, goodput, workfolder
from glore_jax.parallel import watch
from glore_jax.training import checkpoints, resuming

SCRIPT = str(Path(__file__).with_name("small_job.py"))
RATES = ("sampled_tokens_per_second", "train_tokens_per_second")
TRAINED = ("loss", "token_accuracy", "dev_accuracy")  # counts of a training: they are rounded, and may differ by that


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes that nobody cuts."""
    workdir = tmp_path_factory.mktemp("alone")
    run(1, [SCRIPT, str(workdir)])
    return workdir


def assert_alike(workdir: Path, alone: Path) -> None:
    """Samples, labels and rollouts to the last bit, and parameters but for rounding: sums over devices have another
    order where there are more of them."""
    names = sorted(path.name for path in alone.iterdir() if path.is_dir())
    assert names == sorted(path.name for path in workdir.iterdir() if path.is_dir())
    assert goodput.METRICS in names  # which are no artifacts
    for name in set(names) - {goodput.METRICS}:
        one, many = (workfolder.read_manifest(folder / name, name) or {} for folder in (alone, workdir))
        assert set(one["files"]) == set(many["files"])
        for path in one["files"]:
            if name == "sft":
                continue
            assert (alone / name / path).read_bytes() == (workdir / name / path).read_bytes(), f"{name}/{path}"
        left_out = (*RATES, *TRAINED) if name == "sft" else RATES
        assert all(one["counts"][key] == many["counts"][key] for key in one["counts"] if key not in left_out)
    models = [checkpoints.load_model(folder / "sft" / "model.safetensors")[0] for folder in (alone, workdir)]
    jax.tree.map(lambda one, many: np.testing.assert_allclose(many, one, atol=2e-6), *models)


def test_two_processes_make_what_one_makes(tmp_path: Path, alone: Path):
    first, second = run(2, [SCRIPT, str(tmp_path)])
    assert "[6/7] labels: roll out every prefix" in first.out and "all 7 stages are done" in first.out
    assert "labels" not in second.out  # the lead alone speaks
    assert_alike(tmp_path, alone)


def test_a_process_that_is_killed_is_named_and_one_alone_goes_on(tmp_path: Path, alone: Path):
    job = Job(2, [SCRIPT, str(tmp_path), "kill", "1", "rollouts", "2"])
    job.processes[1].wait(SECONDS)
    died = time.monotonic()
    first, second = job.wait()
    assert time.monotonic() - died < 60
    assert (first.code, second.code) == (75, -signal.SIGKILL)
    assert "error: process 1 (" in first.err and "not heard of for 15 seconds" in first.err
    assert 0 < len(list((tmp_path / "labels.partial" / "rollouts").iterdir())) < 8
    ended = run(1, [SCRIPT, str(tmp_path)])[0]
    assert "labels: roll out every prefix and label the steps (goes on where it stopped)" in ended.out
    assert_alike(tmp_path, alone)


def test_process_0_that_is_killed_is_named_at_once(tmp_path: Path):
    """JAX would have the others abort, with words that name nobody."""
    job = Job(3, [SCRIPT, str(tmp_path), "kill", "0", "rollouts", "1"])
    job.processes[0].wait(SECONDS)
    began = time.monotonic()
    ended = job.wait()
    assert time.monotonic() - began < watch.LIMIT / 4
    assert [one.code for one in ended] == [-signal.SIGKILL, watch.LOST, watch.LOST]
    told = f"error: process 0 ({socket.gethostname()}): its connection broke, so it died"
    assert all(f"process {n}: {told}" in ended[n].err for n in (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_dies_while_the_devices_come_together_is_named(tmp_path: Path, process: int):
    """Before that there is nobody to miss: those who wait say so themselves, after five minutes."""
    ended = Job(2, [SCRIPT, str(tmp_path), "kill", str(process), "joined", "1"]).wait()
    assert ended[process].code == -signal.SIGKILL
    assert ended[1 - process].code == watch.LOST and f"error: process {process} (" in ended[1 - process].err


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_hangs_is_named(tmp_path: Path, process: int):
    job = Job(2, [SCRIPT, str(tmp_path), "stop", str(process), "rollouts", "1"])
    other = job.wait(for_these=[1 - process])[1 - process]
    assert other.code == 75 and f"error: process {process} (" in other.err


@pytest.mark.slow
def test_four_processes_then_two_then_one_then_four(tmp_path: Path, alone: Path):
    """Each is killed on its way through the labels, and again through the training, which four processes end."""
    saved = tmp_path / "sft.partial" / "checkpoint" / "train"
    for place, done in (("rollouts", 1), ("steps", 2)):  # with the second step on its way, the first is on the disk
        for count, process in ((4, 3), (2, 1), (1, 0)):
            before = resuming.reached(saved)
            ended = Job(count, [SCRIPT, str(tmp_path), "kill", str(process), place, str(done)]).wait()
            assert ended[process].code == -signal.SIGKILL, ended[0].err
            assert (tmp_path / "labels").exists() == (place == "steps")
            assert place == "rollouts" or before < resuming.reached(saved) < 6
    assert not (tmp_path / "sft").exists()
    assert "sft: train the first student on worked solutions (goes on" in run(4, [SCRIPT, str(tmp_path)])[0].out
    assert_alike(tmp_path, alone)


@pytest.mark.slow
def test_the_same_devices_in_other_processes(tmp_path: Path):
    """One process of four devices, two of two, four of one."""
    for count in (1, 2, 4):
        run(count, [SCRIPT, str(tmp_path / str(count))], devices=4 // count)
        assert files.read_json(tmp_path / str(count) / "sft" / "manifest.json")["counts"]["steps"] == 6
        assert_alike(tmp_path / str(count), tmp_path / "1")
