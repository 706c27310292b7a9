"""Real processes that make up one job on this machine: started together, each with its own output."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 1800  # for a job; a machine that does much else is slow


@dataclasses.dataclass(frozen=True)
class Ended:
    """Attributes: code, of the process; out, err, what it printed."""

    code: int
    out: str
    err: str


class Job:
    """Processes 0 to N - 1 of one job, which run `words` with the options that name them."""

    def __init__(self, count: int, words: Sequence[str], devices: int = 1, **environment: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        names = {"GLORE_COORDINATOR": f"127.0.0.1:{port}", "GLORE_PROCESSES": str(count)}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        base = os.environ | {"PYTHONPATH": paths, "DEVICES": str(devices)} | environment
        self.files = [[tempfile.TemporaryFile("w+") for _ in range(2)] for _ in range(count)]  # noqa: SIM115
        self.processes = [
            subprocess.Popen(
                [sys.executable, *words],
                stdout=self.files[i][0],
                stderr=self.files[i][1],
                env=base | (names | {"GLORE_PROCESS": str(i)} if count > 1 else {}),
            )
            for i in range(count)
        ]

    def said(self, process: int = 0) -> str:
        """What a process has printed so far."""
        file = self.files[process][0].fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode()  # at a place of its own: the process shares the file

    def running(self) -> bool:
        """Whether none has ended."""
        return all(process.poll() is None for process in self.processes)

    def wait(self, for_these: Sequence[int] | None = None) -> list[Ended]:
        """Waits for all processes, or for some of them; none outlives this."""
        try:
            for i in range(len(self.processes)) if for_these is None else for_these:
                self.processes[i].wait(SECONDS)
        finally:
            for process in self.processes:
                process.kill()
        codes = [process.wait() for process in self.processes]
        return [Ended(code, *map(_read, pair)) for code, pair in zip(codes, self.files, strict=True)]


def _read(file: Any) -> str:
    with file:
        file.seek(0)
        return file.read()


def run(count: int, words: Sequence[str], devices: int = 1, **environment: str) -> list[Ended]:
    """Runs a job that is expected to go well; what its processes printed."""
    ended = Job(count, words, devices, **environment).wait()
    for i, one in enumerate(ended):
        assert one.code == 0, f"process {i} of {count} ended with {one.code}:\n{one.out}\n{one.err}"
    return ended
