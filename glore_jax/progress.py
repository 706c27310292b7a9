"""Progress of long work: a bar with rate and time left on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import rich
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LOG_SECONDS = 10.0  # between two plain lines
SHOW_SECONDS = 0.1  # between two updates of the bar


def say(line: str) -> None:
    """Prints one line, above the progress bar where there is one; never wrapped, never coloured."""
    rich.get_console().print(line, soft_wrap=True, highlight=False, markup=False)


def duration(seconds: float) -> str:
    """Readable time.

    >>> duration(4.26), duration(75), duration(7260)
    ('4.3 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def number(value: Any) -> str:
    """Readable number: thousands separated, fractions to four digits; other values as text.

    >>> number(12345), number(0.123456), number(True)
    ('12,345', '0.1235', 'True')
    """
    if isinstance(value, (str, bool)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    try:
        return f"{float(value):,.4g}"
    except (TypeError, ValueError):
        return str(value)


def size(count: int) -> str:
    """Readable bytes.

    >>> size(950), size(12_345_678)
    ('950 B', '11.8 MiB')
    """
    if count < 1024:
        return f"{count} B"
    value = count / 1024
    for unit in ("KiB", "MiB"):
        if value < 1024:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


class Bar:
    """Counts work done and shows it now and then; made by `track`."""

    def __init__(self, total: int, start: int, show: Callable[[Bar], None], every: float, check: Callable[[], None]):
        self.total, self.done = total, start
        self._start, self._show, self._every, self._check = start, show, every, check
        self._began = self._shown = time.monotonic()
        self._fields: dict[str, Any] = {}

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Counts `n` more done. Fields (loss=…) are shown beside; they are only read when shown."""
        self.done += n
        self._fields |= fields
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            self._show(self)
        self._check()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Units a second in this run; what an earlier run had done does not count."""
        return (self.done - self._start) / max(self.seconds, 1e-9)

    @property
    def note(self) -> str:
        """The fields, ready to print."""
        return ", ".join(f"{name} {number(value)}" for name, value in self._fields.items())


@contextlib.contextmanager
def track(total: int, unit: str, label: str, start: int = 0, check: Callable[[], None] = lambda: None) -> Iterator[Bar]:
    """Shows the progress of a block of work.

    Args:
      total: units of work in all.
      unit: their name in the plural, e.g. `steps`.
      label: what is being done, e.g. `train: student`.
      start: units that an earlier, interrupted run had done.
      check: called at every advance; raises where the run was asked to stop.
    """
    if rich.get_console().is_terminal:
        with _on_terminal(total, unit, label, start, check) as bar:
            yield bar
        return
    lines = 0

    def log(bar: Bar) -> None:
        nonlocal lines
        lines += 1
        left = duration((bar.total - bar.done) / bar.rate) if bar.rate > 0 else "unknown time"
        share = f"{bar.done / bar.total:.0%}, " if bar.total else ""
        parts = [f"{bar.done:,}/{bar.total:,} {unit} ({share}{number(bar.rate)} {unit}/s, {left} left)", bar.note]
        say(f"{label}: {', '.join(part for part in parts if part)}")

    bar = Bar(total, start, log, LOG_SECONDS, check)
    yield bar
    if lines:  # short work says nothing at all
        parts = [f"{bar.done:,} {unit} in {duration(bar.seconds)} ({number(bar.rate)} {unit}/s)", bar.note]
        say(f"{label}: {', '.join(part for part in parts if part)}")


@contextlib.contextmanager
def _on_terminal(total: int, unit: str, label: str, start: int, check: Callable[[], None]) -> Iterator[Bar]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}, {task.fields[rate]}/s,"),
        TimeRemainingColumn(),
        TextColumn("left {task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=rich.get_console()) as display:
        task = display.add_task(label, total=total, completed=start, unit=unit, rate="-", note="")

        def show(bar: Bar) -> None:
            display.update(task, completed=bar.done, rate=number(bar.rate), note=bar.note)

        bar = Bar(total, start, show, SHOW_SECONDS, check)
        yield bar
        show(bar)
