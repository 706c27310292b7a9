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

KILLS = 30
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
    """Every stage once, the others at random, in the order in which they come."""
    places = [*STAGES, *draw.choices([START_UP, *STAGES], k=KILLS - len(STAGES) - 3), *[START_UP] * 3]
    everyone = tuple(range(processes))
    victims = [everyone, *((n,) for n in everyone)] if processes > 1 else [everyone]
    found = []
    for number, place in enumerate(sorted(places, key=[START_UP, *STAGES].index)):
        # Who has not met the others yet is waited for, for five minutes: it is as if the machine had gone.
        whom = everyone if place == START_UP else victims[number % len(victims)]
        last = place == STAGES[-1]  # a run that has ended cannot be killed any more
        how = INSIDE if last or place == START_UP else draw.choice((INSIDE, INSIDE, PUBLISHING))
        found.append(Moment(place, how, draw.random() / (2 if last else 1), whom))
    return found


def await_moment(job: Job, workdir: Path, moment: Moment, seconds: dict[str, float]) -> None:
    """Returns at the moment, or where the job ends before."""

    def wait(over: Callable[[], bool]) -> None:
        while job.running() and not over():
            time.sleep(0.001)

    if moment.place != START_UP:
        late = STAGES[STAGES.index(moment.place) :]  # its stage may have ended before an earlier kill
        wait(lambda: whole_run.under_way(job.said()) in late)
    place = whole_run.under_way(job.said()) or START_UP
    if moment.how == PUBLISHING:
        final = workdir / place
        wait(lambda: final.exists() or (workdir / (place + files.PARTIAL) / files.MANIFEST).exists())
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


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_killed_thirty_times_ends_the_same(
    tmp_path: Path, uncut: Callable[[int], Path], processes: int, capsys: pytest.CaptureFixture[str]
):
    whole, workdir = uncut(processes), tmp_path / "run"
    seconds = uncut_seconds(whole, processes)
    hit: collections.Counter[str] = collections.Counter()
    for number, moment in enumerate(moments(random.Random(processes), processes), 1):
        job = Job(processes, whole_run.command(workdir), PYTHONUNBUFFERED="1")
        await_moment(job, workdir, moment, seconds)
        place = whole_run.under_way(kill(job, moment.victims)) or START_UP
        hit[place] += 1
        with capsys.disabled():
            print(f"\nkill {number} of {moment.victims} in {place}: {doing(workdir)}", end="", flush=True)
    run(processes, whole_run.command(workdir))
    assert whole_run.results(workdir) == whole_run.results(whole)
    assert whole_run.folders(workdir) == sorted(STAGES)
    assert len(hit) >= 12 and hit[START_UP] >= 2, hit
