"""Who of a job's processes is alive: a silent job is worse than one that ended.

Each process says every few seconds that it is there, through JAX's coordinator, which process 0 has. One that is not
heard of for `LIMIT` seconds died, or is stopped, or cannot be reached: the others name it and end. One that fails says
so, and the others end with it; one that is asked to stop (SIGTERM, Ctrl-C) hands that on to them.

When process 0 dies its end of every connection breaks (`line`), so the others name it and end at once.

One thing is not seen here: a process whose threads run while its work stands still is one that answers, and the others
wait for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from typing import Any

LIMIT = 40.0  # seconds without a word
LOST = 75  # exit code: try again (EX_TEMPFAIL)
_ROOM = "glore/watch/"  # of the coordinator's keys
_EVERY = 2.0  # seconds between two looks
_GRACE = 120.0  # seconds that a process takes to stop when it is asked to
_GO_ON = "the job ends. What is finished is kept: start all processes again to go on"


class Watch:
    """Two daemon threads of one process: one talks to the coordinator, one judges what it has heard.

    Args:
      index, count: which process this is, of how many.
      coordinator: where process 0 is reached.
    """

    def __init__(self, index: int, count: int, coordinator: str):
        self.index, self.count = index, count
        self.names = {n: f"process {n}" for n in range(count)} | {0: f"process 0 ({coordinator})"}
        self.ended: dict[int, str] = {}  # code and reason of each process that has failed or was stopped
        self._leaves = False  # whether this one has
        self._over = threading.Event()

    def start(self, client: Any) -> None:
        """Begins, with JAX's connection to the coordinator."""
        self.client = client
        self.heard = dict.fromkeys(range(self.count), time.monotonic())  # when, of each process
        self._say("name", socket.gethostname())
        for run in (self._talk, self._judge):
            threading.Thread(target=run, daemon=True).start()

    def stop(self) -> None:
        """Says nothing more, and misses nobody."""
        self._over.set()

    def cut(self) -> None:
        """Ends this process, as process 0 can no longer be reached; returns where one of them is ending anyway."""
        if not (self._over.is_set() or self._leaves or 0 in self.ended):
            self._end(LOST, f"{self.names[0]}: its connection broke, so it died or cannot be reached; {_GO_ON}")

    def fail(self, code: int, message: str, reason: str, exit_code: int | None = None) -> None:
        """Ends this process and with it the job; does not return.

        What fails without an explanation (code 1) is often what another process's death has broken: so the others are
        judged first.

        Args:
          message: printed here; "" for none.
          reason: told to the others, in a line.
          exit_code: where it is not the code that the others are told.
        """
        if code == 2 and self.index and self._lead_says(code, reason):
            message = ""
        if message:
            print(f"{self._prefix()}{message}", file=sys.stderr, flush=True)
        if code == 1:
            time.sleep(LIMIT + 2 * _EVERY)
        self._leaves = True
        with contextlib.suppress(RuntimeError):
            self._say("ended", f"{code} {reason}")
        self._exit(code if exit_code is None else exit_code)

    def _lead_says(self, code: int, reason: str) -> bool:
        """Whether process 0 fails in the same way; what is wrong with the input is often wrong everywhere."""
        time.sleep(2 * _EVERY)
        return self.ended.get(0) == f"{code} {reason}"

    def _prefix(self) -> str:
        return f"process {self.index}: " if self.index else ""

    def _talk(self) -> None:
        beats: dict[str, str] = {}
        beat = 0
        while not self._over.wait(_EVERY):
            beat += 1
            with contextlib.suppress(RuntimeError):  # process 0 cannot be reached: soon it is missed
                self._say("beat", str(beat))
                for key, value in self.client.key_value_dir_get(_ROOM):
                    kind, number = key.split("/")[-2:]
                    if kind == "beat" and beats.get(number) != value:
                        beats[number] = value
                        self.heard[int(number)] = time.monotonic()
                    elif kind == "name":
                        self.names[int(number)] = f"process {number} ({value})"
                    elif kind == "ended":
                        self.ended[int(number)] = value

    def _say(self, kind: str, value: str) -> None:
        self.client.key_value_set(f"{_ROOM}{kind}/{self.index}", value, allow_overwrite=True)

    def _judge(self) -> None:
        before = time.monotonic()
        while not self._over.wait(1.0):
            now = time.monotonic()
            if now - before > LIMIT / 2:  # this very process was stopped for a while, and could hear nobody
                self.heard = dict.fromkeys(self.heard, now)
            before = now
            if self.ended and not self._leaves:
                self._follow(*next(iter(self.ended.items())))
            silent = [n for n, at in self.heard.items() if now - at > LIMIT and n != self.index]
            if silent:
                # All news comes through process 0, so without it nobody is heard.
                names = self.names[0] if 0 in silent else ", ".join(self.names[n] for n in silent)
                self._end(
                    LOST,
                    f"{names}: not heard of for {LIMIT:.0f} seconds, so it died, hangs or cannot be reached; {_GO_ON}",
                )

    def _follow(self, number: int, ended: str) -> None:
        """Ends as another process has."""
        code, _, reason = ended.partition(" ")
        if int(code) > 128:
            self._leaves = True
            os.kill(os.getpid(), int(code) - 128)
            self._over.wait(_GRACE)
            self._end(int(code), f"asked to stop by {self.names[number]}, and did not within {_GRACE:.0f} seconds")
        self._end(int(code), f"{self.names[number]} failed ({reason}); the job ends")

    def _end(self, code: int, message: str) -> None:
        print(f"{self._prefix()}error: {message}", file=sys.stderr, flush=True)
        self._exit(code)

    def _exit(self, code: int) -> None:
        if self.index == 0:  # the coordinator goes with it, and JAX aborts who is still there
            time.sleep(3 * _EVERY)
        os._exit(code)
