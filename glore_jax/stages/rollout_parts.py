"""Rollouts on disk: a file for each few hundred traces, written and read one at a time.

There are tens of rollouts to a trace. So whatever is made of them is made part by part, and memory grows with traces
alone.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from glore_jax import files
from glore_jax.pipeline import StageContext
from glore_jax.records import Rollout, Solution

TRACES_A_PART = 250  # at most
_PARTS = 8  # of few traces too, so that several processes have something to do
_FEWEST = 16  # traces of a part: at its end slots stand idle


def split(folder: Path, traces: Sequence[Solution]) -> Iterator[tuple[Path, Sequence[Solution]]]:
    """The file of each part in the folder of a stage, and the traces whose rollouts it has.

    Traces of one question that stand together lie in one part, where prefixes that they share are continued once; only
    of more than a part may have are there several. It hangs on the traces alone, so that other processes, and more or
    fewer of them, may go on with the parts.
    """
    size = min(TRACES_A_PART, max(_FEWEST, -(-len(traces) // _PARTS)))
    parts: list[list[Solution]] = [[]]
    for _, group in itertools.groupby(traces, key=lambda trace: trace.problem_id):
        mine = list(group)
        for at in range(0, len(mine), TRACES_A_PART):
            some = mine[at : at + TRACES_A_PART]
            if parts[-1] and len(parts[-1]) + len(some) > size:
                parts.append([])
            parts[-1] += some
    for number, part in enumerate(filter(None, parts)):
        yield folder / "rollouts" / f"part-{number:05d}.parquet", part


class RolloutParts(Mapping[str, Sequence[Rollout]]):
    """Rollouts of a stage by trace id, of which those of one part are in memory: that of the last trace asked for.

    Whoever asks for traces in the order in which they were rolled out reads each part once.

    Args:
      folder: of the stage.

    Attributes:
      count: of all rollouts.
    """

    def __init__(self, folder: Path):
        self.count, self._advance = 0, lambda rollouts: None
        self._part: dict[str, Path] = {}  # by trace
        self._at, self._held = Path(), dict[str, list[Rollout]]()
        for path in sorted((folder / "rollouts").glob("part-*.parquet")):
            sizes = files.tally(path, Rollout, "trace_id")
            self.count += sum(sizes.values())
            self._part |= dict.fromkeys(sizes, path)

    @contextlib.contextmanager
    def shown(self, context: StageContext, purpose: str) -> Iterator[RolloutParts]:
        """For one pass over all rollouts: a bar counts those that are read, and a run that is to stop stops here."""
        with context.progress(self.count, "rollouts", purpose) as bar:
            self._advance = bar.advance
            yield self

    def __getitem__(self, trace_id: str) -> Sequence[Rollout]:
        path = self._part[trace_id]
        if path != self._at:
            self._held = {}  # before the next one comes
            rollouts = files.read_table(path, Rollout)
            self._at, self._held = path, _by_trace(rollouts)
            self._advance(len(rollouts))
        return self._held[trace_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._part)

    def __len__(self) -> int:
        return len(self._part)


def _by_trace(rollouts: Sequence[Rollout]) -> dict[str, list[Rollout]]:
    by_trace: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        by_trace[rollout.trace_id].append(rollout)
    return dict(by_trace)
