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
      exit_code: 130 after Ctrl-C, as a shell expects; 0 after SIGTERM, by which a scheduler takes the machine away: the
        run has done what it could, and a failure would be counted against it.
    """

    def __init__(self, number: int):
        self.signal = signal.Signals(number)
        self.exit_code = 0 if number == signal.SIGTERM else 128 + number
        super().__init__(self.signal.name)


class Stop:
    """What is known of the signals that came; made by `stoppable`."""

    def __init__(self):
        self._received: list[int] = []
        self._held = False

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """The handler of both signals."""
        self._received.append(number)
        self.check()

    def check(self) -> None:
        """Raises `Interrupted` where a signal came. Call it now and then in long loops.

        The exception rises where the signal finds the main thread, but Python drops one that rises inside a callback
        of its own (a finaliser, say); this raises it again, so that a signal is never lost.
        """
        if self._received and not (self._held and self._received[-1] == signal.SIGTERM):
            raise Interrupted(self._received[-1])

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[], bool]]:
        """Inside the block SIGTERM does not cut in: whoever runs it saves first, and raises `Interrupted` then.

        Yields:
          Whether SIGTERM came.
        """
        self._held = True
        try:
            yield lambda: bool(self._received)
        finally:
            self._held = False
        self.check()


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Turns Ctrl-C and SIGTERM into `Interrupted` inside the block."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers; whoever runs us elsewhere has their own
        return
    before = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
