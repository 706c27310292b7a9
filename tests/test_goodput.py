"""Each second counts once, as what it was; what a kill undid is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from glore_jax import files, goodput
from glore_jax.errors import InputError


class Time:
    """Attributes: now, compiled: seconds, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = self.compiled = 0.0
        monkeypatch.setattr(goodput.time, "monotonic", lambda: self.now)

    def clock(self, path: Path | None = None, resumed: bool = False) -> goodput.Clock:
        return goodput.Clock(path, resumed, lambda: self.compiled)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def spent(clock: goodput.Clock) -> dict[str, float]:
    return {kind: seconds for kind, seconds in clock.seconds.items() if seconds}


def test_inner_blocks_are_not_of_the_outer_ones_and_compiling_is_of_none(time: Time):
    clock = time.clock()
    time.now = 1.0
    with clock.spend("steps"):
        time.now = 4.0
        with clock.spend("input"):
            time.now = 6.0
        time.now, time.compiled = 10.0, 3.0
    time.now = 10.5
    assert spent(clock) == {"other": 1.5, "steps": 4.0, "compile": 3.0, "input": 2.0}


def test_what_a_kill_undid_is_lost(tmp_path: Path, time: Time):
    path = tmp_path / "metrics" / "sft" / goodput.TIME
    clock = time.clock(path)
    with clock.spend("steps"):
        time.now = 10.0
        clock.keep()  # a checkpoint
        time.now = 14.0
        clock.tick()
        time.now = 16.0
        clock.tick()  # the last one that is written
        time.now = 18.0
    time.now = 100.0
    again = time.clock(path, resumed=True)
    with again.spend("sampling"):
        time.now = 101.0
    assert spent(again) == {"steps": 10.0, "lost": 6.0, "sampling": 1.0}
    again.write()
    assert goodput.of_stages(tmp_path)["sft"]["lost"] == 6.0
    assert spent(time.clock(path, resumed=False)) == {}


def test_counts_that_are_none_are_named(tmp_path: Path, time: Time):
    path = tmp_path / "metrics" / "sft" / goodput.TIME
    files.write_json(path, {"kept": {}})
    with pytest.raises(InputError, match=r"time\.json: holds no counts of time; remove it"):
        time.clock(path, resumed=True)
    assert goodput.line({}) == "goodput: no times were kept"
