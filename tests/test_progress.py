"""Progress without a terminal, on one, and readable numbers."""

from __future__ import annotations

import io
import time

import pytest
import rich
from rich.console import Console

from glore_jax import progress


class Clock:
    """Stands in for `time.monotonic`."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_a_line_comes_every_ten_seconds_with_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with progress.track(100, "steps", "train: student", start=20) as bar:
        for _ in range(10):
            clock.now += 4
            bar.advance(8, loss=0.25)
    assert capsys.readouterr().out.splitlines() == [
        # 24 steps in 12 s; the 20 of the earlier run do not count in the rate.
        "train: student: 44/100 steps (44%, 2 steps/s, 28.0 s left), loss 0.25",
        "train: student: 68/100 steps (68%, 2 steps/s, 16.0 s left), loss 0.25",
        "train: student: 92/100 steps (92%, 2 steps/s, 4.0 s left), loss 0.25",
        "train: student: 100 steps in 40.0 s (2 steps/s), loss 0.25",
    ]


def test_short_and_empty_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with progress.track(5, "steps", "short") as bar:
        clock.now += 9
        bar.advance(5)
    with progress.track(0, "steps", "empty"):
        pass
    assert capsys.readouterr().out == ""


def test_a_failure_inside_is_not_reported_as_an_end(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(RuntimeError), progress.track(5, "steps", "failing") as bar:
        clock.now += 11
        bar.advance()
        raise RuntimeError
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_every_advance_asks_whether_to_stop():
    class Stop(Exception):
        pass

    def check() -> None:
        raise Stop

    with pytest.raises(Stop), progress.track(5, "steps", "stopped", check=check) as bar:
        bar.advance()


def test_a_terminal_gets_a_bar_with_rate_and_fields(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, color_system=None)
    monkeypatch.setattr(rich, "get_console", lambda: console)
    with progress.track(4, "steps", "train [student]") as bar:
        bar.advance(3, loss=1.5)
        progress.say("a line [in] between")
        bar.advance(1, loss=0.5)
    text = screen.getvalue()
    assert "a line [in] between" in text
    last = text.split("train [student]")[-1]
    assert "4/4 steps" in last
    assert "loss 0.5" in last


def test_lines_are_neither_wrapped_nor_marked_up(capsys: pytest.CaptureFixture[str]):
    line = "[red]value[/red] " + "word " * 60
    progress.say(line)
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.97, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min")],
)
def test_durations(seconds: float, text: str):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.41234567, "0.4123"), ("word", "word"), (False, "False"), ([1], "[1]")],
)
def test_numbers(value: object, text: str):
    assert progress.number(value) == text
