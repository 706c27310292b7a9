"""The whole pipeline, killed at many random moments, makes what one makes that nobody cuts."""

from __future__ import annotations

import collections
import dataclasses
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import whole_run
from processes import Job, run
from whole_run import STAGES

from glore_jax import files, goodput, workfolder
from glore_jax.parallel import watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = {1: 30, 2: 16}  # by the number of processes; of two, every one compiles anew what it computes for itself
START_UP, INSIDE, PUBLISHING = "start-up", "inside", "publishing"


@dataclasses.dataclass(frozen=True)
class Moment:
    """When a job is killed.

    Attributes:
      place: `START_UP`, or a stage that is then under way or has just ended.
      how: `INSIDE`: after a share of the time that the place took uncut; `PUBLISHING`: once the stage's manifest is
        there, before its folder is renamed, if it is seen in time.
      share: from 0 to 1.
      victims: the processes.
    """

    place: str
    how: str
    share: float
    victims: tuple[int, ...]


def moments(draw: random.Random, processes: int) -> list[Moment]:
    """Every stage and the start-up once, the others at random, in the order in which they come."""
    places = [START_UP, *STAGES]
    places += draw.choices(places, k=KILLS[processes] - len(places))
    everyone = tuple(range(processes))
    victims = [everyone, *((n,) for n in everyone)] if processes > 1 else [everyone]
    found = []
    for number, place in enumerate(sorted(places, key=[START_UP, *STAGES].index)):
        # Who has not met the others yet is waited for, for five minutes: it is as if the machine had gone.
        whom = everyone if place == START_UP else victims[number % len(victims)]
        how = INSIDE if place in (START_UP, STAGES[-1]) else draw.choice((INSIDE, INSIDE, PUBLISHING))
        found.append(Moment(place, how, draw.random(), whom))
    return found


def started_until(moment: Moment, workdir: Path, processes: int, seconds: dict[str, float]) -> Job:
    """A job under way at the moment. Where an earlier one had got beyond it, its stage is made again."""
    while True:
        again = [f"--from={moment.place}"] if (workdir / moment.place).exists() else []
        job = Job(processes, whole_run.command(workdir, *again), PYTHONUNBUFFERED="1")
        await_moment(job, workdir, moment, seconds)
        if job.running():
            return job
        ended = job.wait()  # it was too quick, or this process too slow
        assert [one.code for one in ended] == [0] * processes, ended[0].err


def await_moment(job: Job, workdir: Path, moment: Moment, seconds: dict[str, float]) -> None:
    """Returns at the moment, or where the job ends before."""

    def wait(over: Callable[[], bool]) -> None:
        while job.running() and not over():
            time.sleep(0.003)

    if moment.place != START_UP:
        late = STAGES[STAGES.index(moment.place) :]
        wait(lambda: whole_run.under_way(job.said()) in late)
    place = whole_run.under_way(job.said()) or START_UP
    if moment.how == PUBLISHING:
        partial = workdir / (place + files.PARTIAL)
        wait(lambda: not partial.exists() or (partial / files.MANIFEST).exists())
    else:
        end = time.monotonic() + moment.share * seconds[place]
        wait(lambda: time.monotonic() > end)


def doing(workdir: Path) -> str:
    """What the run was writing last, by its newest file in a stage's unfinished folder."""
    paths = [path for path in workdir.glob(f"*{files.PARTIAL}/**/*") if path.is_file()]
    if not paths:
        return "nothing is unfinished"
    parts = max(paths, key=lambda path: path.stat().st_mtime_ns).relative_to(workdir).parts[1:]
    if parts[0] == files.MANIFEST:
        return "publishing"
    if "samples" in parts:
        return "sampling"
    return "saving a training" if parts[0] == workfolder.CHECKPOINT else "/".join(parts[:2])


def kill(job: Job, victims: Sequence[int]) -> str:
    """Kills processes; those that are left end by themselves, and name one of them. What the lead had printed."""
    for victim in victims:
        job.processes[victim].kill()
    died = time.monotonic()
    ended = job.wait()
    assert time.monotonic() - died < 60
    for n, one in enumerate(ended):
        if n in victims:
            assert one.code == -signal.SIGKILL
        else:
            assert one.code == watch.LOST, one.err
            assert f"error: process {victims[0]} (" in one.err
    return ended[0].out


def uncut_seconds(whole: Path, processes: int) -> dict[str, float]:
    """How long a start takes, and how long each stage took, but for compiling, which is done once."""
    began = time.monotonic()
    run(processes, whole_run.command(whole))  # finished, so it only prints
    taken = {START_UP: time.monotonic() - began}
    for name, kinds in goodput.of_stages(whole).items():
        taken[name] = sum(kinds.values()) - kinds["compile"]
    return taken


@pytest.mark.parametrize("processes", KILLS)
def test_a_run_that_is_killed_again_and_again_ends_the_same(
    tmp_path: Path, uncut: Callable[[int], Path], processes: int, capsys: pytest.CaptureFixture[str]
):
    whole, workdir = uncut(processes), tmp_path / "run"
    seconds = uncut_seconds(whole, processes)
    hit: collections.Counter[str] = collections.Counter()
    for number, moment in enumerate(moments(random.Random(processes), processes), 1):
        job = started_until(moment, workdir, processes, seconds)
        place = whole_run.under_way(kill(job, moment.victims)) or START_UP
        hit[place] += 1
        with capsys.disabled():
            print(f"\nkill {number} of {moment.victims} in {place}: {doing(workdir)}", end="", flush=True)
    run(processes, whole_run.command(workdir))
    assert whole_run.results(workdir) == whole_run.results(whole)
    assert whole_run.folders(workdir) == sorted(STAGES)
    assert sum(hit.values()) == KILLS[processes] and len(hit) >= 12, hit
