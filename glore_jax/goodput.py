"""Where the time of a run goes, stage by stage, over all its attempts.

Each stage keeps its counts in `DIR/metrics/STAGE/time.json`, outside of its artifacts, which are the same whatever
time they took. An attempt that is killed has done some work that no checkpoint holds: what was spent on it since the
last one is `lost`. Counts are written every few seconds; the last ones of an attempt that was killed are not in them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.progress import duration

METRICS, TIME = "metrics", "time.json"
KINDS = {
    "steps": "steps of trainings",
    "sampling": "sampling",
    "compile": "tracing and compiling, or taking compiled programs from the cache",
    "checkpoint": "waiting for checkpoints, which are written in the background",
    "input": "making batches and putting them on the devices",
    "other": "everything else: reading, scoring, writing",
    "lost": "work that was done again because no checkpoint held it",
}
USEFUL = ("steps", "sampling")
_WRITE_SECONDS = 5.0


class Clock:
    """Shares the wall time of a stage out among kinds of work; each second counts once.

    Args:
      path: of the counts; None keeps them in memory.
      resumed: whether to go on from the counts of an attempt that was cut.
      compiled: seconds that were spent on compiling so far, whatever else was going on.
    """

    def __init__(self, path: Path | None = None, resumed: bool = False, compiled: Callable[[], float] = lambda: 0.0):
        self._path, self._compiled = path, compiled
        self._kept, self._fresh = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
        if path is not None and resumed and path.exists():
            before = _read(path)
            self._kept = before["kept"]
            self._kept["lost"] += sum(before["fresh"].values())
        self._kind = "other"
        self._since, self._compiled_before = time.monotonic(), compiled()
        self._written = self._since

    @contextlib.contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """The block's time is of this kind, but for what blocks inside it spend."""
        self._account()
        before, self._kind = self._kind, kind
        try:
            yield
        finally:
            self._account()
            self._kind = before

    def tick(self) -> None:
        """Writes the counts where the last time was long ago; for loops."""
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self.write()

    def keep(self) -> None:
        """Says that nothing which was done so far would have to be done again after a kill."""
        self._account()
        for kind, seconds in self._fresh.items():
            self._kept[kind] += seconds
            self._fresh[kind] = 0.0
        self.tick()

    def write(self) -> None:
        self._account()
        self._written = time.monotonic()
        if self._path is not None:
            files.write_json(self._path, {"kept": self._kept, "fresh": self._fresh})

    @property
    def seconds(self) -> dict[str, float]:
        """By kind, so far."""
        self._account()
        return {kind: self._kept[kind] + self._fresh[kind] for kind in KINDS}

    def _account(self) -> None:
        now, compiled = time.monotonic(), self._compiled()
        spent = now - self._since
        compiling = min(spent, compiled - self._compiled_before)
        self._fresh["compile"] += compiling
        self._fresh[self._kind] += spent - compiling
        self._since, self._compiled_before = now, compiled


def _read(path: Path) -> dict[str, dict[str, float]]:
    found = files.read_json(path)
    if not isinstance(found, dict) or any(set(found.get(part, ())) != set(KINDS) for part in ("kept", "fresh")):
        raise InputError(f"{path}: holds no counts of time; remove it, and the time of that stage counts from now on")
    return found


def of_stages(workdir: Path) -> dict[str, dict[str, float]]:
    """Seconds by stage and kind, of the stages whose counts there are."""
    counts = {path.parent.name: _read(path) for path in sorted((workdir / METRICS).glob(f"*/{TIME}"))}
    return {name: {k: found["kept"][k] + found["fresh"][k] for k in KINDS} for name, found in counts.items()}


def line(stages: Mapping[str, Mapping[str, float]]) -> str:
    """The shares of the time of all stages together, over all attempts; goodput is that of steps and sampling.

    >>> line({"sft": dict.fromkeys(KINDS, 0.0) | {"steps": 60.0, "compile": 15.0, "lost": 25.0}})
    'goodput 60.0 % of 1 min 40 s in stages: steps 60.0 %, compile 15.0 %, lost 25.0 %'
    """
    seconds = {kind: sum(found[kind] for found in stages.values()) for kind in KINDS}
    total = sum(seconds.values())
    if not total:
        return "goodput: no times were kept"
    listed = ", ".join(f"{kind} {spent / total:.1%}".replace("%", " %") for kind, spent in seconds.items() if spent)
    useful = sum(seconds[kind] for kind in USEFUL) / total
    return f"goodput {100 * useful:.1f} % of {duration(total)} in stages: {listed}"
