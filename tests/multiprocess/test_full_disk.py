"""The whole pipeline on a disk that fills up, again and again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import whole_run
from processes import Job, run

from glore_jax import files, workfolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# A stage, and the bytes that are left when it begins: for the first write, for a part of a model, for some samples.
FULL = (("sft", 0), ("expert_iteration", 3_000_000), ("traces", 20_000), ("labels", 60_000), ("sorm", 0), ("test", 0))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, in memory, which only root can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(path: Path, room: int) -> None:
    """Takes all of a disk but so many bytes."""
    free = os.statvfs(path.parent)
    with path.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_frsize - room, 1))


def assert_whole(workdir: Path) -> None:
    for name in whole_run.folders(workdir):
        manifest = workfolder.read_manifest(workdir / name, name)
        assert manifest is not None
        workfolder.verify(workdir / name, manifest, content=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_on_a_full_disk_names_the_file_and_goes_on_when_there_is_room(
    disk: Path, uncut: Callable[[int], Path], processes: int, capsys: pytest.CaptureFixture[str]
):
    workdir, filler = disk / "run", disk / "filler"
    for stage, room in FULL:
        job = Job(processes, whole_run.command(workdir), PYTHONUNBUFFERED="1")
        while job.running() and whole_run.under_way(job.said()) != stage:
            time.sleep(0.001)
        fill(filler, room)
        ended = job.wait()
        assert [one.code for one in ended] == [2] * processes, ended[0].err
        said = [line for one in ended for line in one.err.splitlines() if f"error: {workdir}/" in line]
        with capsys.disabled():
            print(f"\n{stage}, {room:,} bytes left: {said[0] if said else ended[0].err[-2000:]}", end="", flush=True)
        assert "cannot be written" in said[0] and "No space left on device" in said[0]
        assert whole_run.folders(workdir) == sorted(whole_run.STAGES[: whole_run.STAGES.index(stage)])
        assert_whole(workdir)
        filler.unlink()
    run(processes, whole_run.command(workdir))
    assert whole_run.results(workdir) == whole_run.results(uncut(processes))
    assert not files.leftovers(workdir)
