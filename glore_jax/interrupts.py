"""Ctrl-C and SIGTERM as one exception, which no `except Exception` swallows."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; artifacts are whole, and the same command goes on.

    Attributes:
      signal: SIGINT or SIGTERM.
      exit_code: what a shell expects of a program that this signal ended, 130 or 143.
    """

    def __init__(self, number: int):
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number
        super().__init__(self.signal.name)


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Turns Ctrl-C and SIGTERM into `Interrupted` inside the block.

    Yields:
      A function to call now and then in long loops. The exception rises where the signal finds the
      main thread, but Python drops one that rises inside a callback of its own (a finaliser, say);
      the function raises it again, so that a signal is never lost.
    """
    received: list[int] = []

    def check() -> None:
        if received:
            raise Interrupted(received[-1])

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield check  # only the main thread may set handlers; whoever runs us elsewhere has their own
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
