"""Where the metrics of a training are written: JSON lines, TensorBoard, Weights & Biases.

A writer has three methods: `settings(values)` once, `scalars(step, values)` after a step, `close()`. A training that
goes on from a checkpoint writes the steps behind it again: what was written of them is taken out first, so that no step
is there twice.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.progress import say

LINES = "metrics.jsonl"
_EVENTS = "events.out.tfevents.*"
_FLUSH_SECONDS = 10.0  # between two times that events are sent to the disk

Row = dict[str, Any]  # "step", "time" (seconds of the epoch) and the metrics, null where they are no numbers


class Writer(Protocol):
    def settings(self, values: dict[str, Any]) -> None: ...

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """A line a step, in `path`; each is on its way to the disk when `scalars` returns.

    Attributes:
      rows: of the steps up to `step`, that were there already.
    """

    def __init__(self, path: Path, step: int):
        self.rows = [row for row in _rows(path) if row["step"] <= step]
        files.write_text(path, "".join(f"{json.dumps(row)}\n" for row in self.rows))
        self._file = open(path, "ab")  # noqa: SIM115 (closed by `close`)

    def settings(self, values: dict[str, Any]) -> None:
        files.write_json(Path(self._file.name).with_name("settings.json"), values)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        files.append(self._file, f"{json.dumps({'step': step, 'time': time.time(), **finite})}\n".encode())

    def close(self) -> None:
        self._file.close()


def _rows(path: Path) -> Iterator[Row]:
    """Rows of a file, if it is there; the last line may have been cut by a kill."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


class TensorBoard:
    """An event file in `folder`; those of before are written anew from `rows`, which leaves out what was cut off.

    Events are written here and now. The usual writer has a thread for it: where that ends, for want of space, whoever
    has more events waits for ever.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]):
        from tensorboardX.record_writer import RecordWriter  # pyright: ignore[reportMissingImports]

        for path in folder.glob(_EVENTS):
            path.unlink()
        self._path = folder / _EVENTS.replace("*", f"{time.time():.0f}.{socket.gethostname()}")
        self._file, self._flushed = RecordWriter(str(self._path)), time.monotonic()
        self._write(time.time(), file_version="brain.Event:2")
        for row in rows:
            self._add(row["step"], {k: v for k, v in row.items() if k not in ("step", "time")}, row["time"])

    def settings(self, values: dict[str, Any]) -> None:
        from tensorboardX.summary import text  # pyright: ignore[reportMissingImports]

        self._write(time.time(), summary=text("settings", f"```\n{json.dumps(values, indent=1)}\n```"))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._add(step, values, time.time())
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._tried(self._file.flush)

    def _add(self, step: int, values: dict[str, Any], when: float) -> None:
        from tensorboardX.summary import scalar  # pyright: ignore[reportMissingImports]

        for name, value in values.items():
            if value is not None:
                self._write(when, step=step, summary=scalar(name, value))

    def _write(self, when: float, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore

        self._tried(self._file.write, Event(wall_time=when, **fields).SerializeToString())

    def _tried(self, write: Callable[..., None], *data: bytes) -> None:
        try:
            write(*data)
        except OSError as error:
            raise files.unwritable(self._path, error) from error

    def close(self) -> None:
        self._tried(self._file.close)


class WeightsAndBiases:
    """A run of a project, found again by `name`; steps that it has already are left as they are."""

    def __init__(self, project: str, name: str, folder: Path):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise InputError("--wandb needs the extra of that name: pip install 'glore_jax[wandb]'") from error
        identity = "".join(letter if letter.isalnum() else "-" for letter in name)
        self._run = wandb.init(project=project, name=name, id=identity, resume="allow", dir=str(folder))

    def settings(self, values: dict[str, Any]) -> None:
        self._run.config.update(values, allow_val_change=True)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class _All:
    """Several writers as one."""

    def __init__(self, writers: Sequence[Writer]):
        self._writers = writers

    def settings(self, values: dict[str, Any]) -> None:
        for writer in self._writers:
            writer.settings(values)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for writer in self._writers:
            writer.scalars(step, values)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@contextlib.contextmanager
def opened(
    folder: Path | None, step: int, more: Callable[[Path], Sequence[Writer]] = lambda folder: ()
) -> Iterator[Writer]:
    """The writers of a training that goes on after a step; without a folder nothing is written.

    Args:
      folder: of this training alone.
      more: makes further writers for the folder.
    """
    made: list[Writer] = []
    try:
        if folder is not None:
            lines = JsonLines(folder / LINES, step)
            made.append(lines)
            with _missing_is_said():
                made.append(TensorBoard(folder, lines.rows))
            made += more(folder)
        yield _All(made)
    finally:
        for writer in made:
            writer.close()


@contextlib.contextmanager
def _missing_is_said() -> Iterator[None]:
    """An environment that was made before this package wrote for TensorBoard lacks tensorboardX: no training fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        say(f"WARNING: no files for TensorBoard ({error}); install this package again to have them")
