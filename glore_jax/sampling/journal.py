"""Completions on disk as they finish, so that work that was cut asks again for its unfinished requests alone."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgpack
import numpy as np

from glore_jax import files
from glore_jax.sampling.requests import Completion, Request
from glore_jax.sampling.work import Work

_REASONS = ("end", "stop", "limit")


class Journal:
    """What has been written for the requests of one sampling, by their ids; close it, or use it in a `with`.

    Each writer appends to a file of its own, and reads those of all, so a sampling may be cut into other shares when
    it goes on.

    Args:
      folder: of this sampling alone: one model, one key, one meaning of each id.
      writer: the name of the file that this process writes.
    """

    def __init__(self, folder: Path, writer: str = "0"):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"{writer}.msgpack"
        own.touch()
        self.found: dict[str, Completion] = {}
        whole = {path: self._read(path) for path in sorted(folder.glob("*.msgpack"))}
        self._file = own.open("r+b")
        self._file.seek(whole[own])
        self._file.truncate()  # what was cut in the middle of a line

    def _read(self, path: Path) -> int:
        """Takes up the entries of a file; returns how many of its bytes are whole."""
        whole = 0
        with path.open("rb") as file:
            entries = msgpack.Unpacker(file)
            for name, reason, tokens, logprobs in entries:
                self.found[name] = Completion(
                    tuple(np.frombuffer(tokens, np.int32).tolist()),
                    _REASONS[reason],
                    tuple(np.frombuffer(logprobs, np.float32).tolist()),
                )
                whole = entries.tell()
        return whole

    def write(self, name: str, completion: Completion) -> None:
        """InputError where the disk is full."""
        tokens, logprobs = np.asarray(completion.tokens, np.int32), np.asarray(completion.logprobs, np.float32)
        entry = name, _REASONS.index(completion.reason), tokens.tobytes(), logprobs.tobytes()
        files.append(self._file, msgpack.packb(entry))  # pyright: ignore[reportArgumentType]

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Closes it and deletes its files, once what they say is kept elsewhere."""
        self.close()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Recorded:
    """Requests under way as `Work` has them, of which those in a journal are found there.

    Args:
      start: makes the work on the others.
    """

    def __init__(
        self,
        start: Callable[[Iterable[Request]], Work],
        requests: Iterable[Request],
        journal: Journal,
        advance: Callable[[int, int], None],
    ):
        self._journal, self._advance = journal, advance
        self._known: deque[tuple[Request, Completion]] = deque()
        self._work = start(request for request in requests if not self._take(request))

    def _take(self, request: Request) -> bool:
        completion = self._journal.found.get(request.id)
        if completion is not None:
            self._known.append((request, completion))
        return completion is not None

    def add(self, request: Request) -> None:
        if not self._take(request):
            self._work.add(request)

    def cancel(self, request: Request) -> None:
        if request.id in self._journal.found:
            self._known = deque(one for one in self._known if one[0] is not request)
        else:
            self._work.cancel(request)

    def __iter__(self) -> Iterator[tuple[Request, Completion]]:
        yield from self._found()
        for request, completion in self._work:
            self._journal.write(request.id, completion)
            yield request, completion
            yield from self._found()
        yield from self._found()

    def _found(self) -> Iterator[tuple[Request, Completion]]:
        while self._known:
            self._advance(1, 0)  # its tokens are not of this run
            yield self._known.popleft()
