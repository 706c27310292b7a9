"""Rollouts in parts: those of one part are in memory, and what is made of them is as if all were."""

from __future__ import annotations

import contextlib
import gc
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.method import label_noise
from glore_jax.method import labels as labelling
from glore_jax.records import Rollout, Solution, StepLabels
from glore_jax.stages import rollout_parts
from glore_jax.stages.rollout_parts import RolloutParts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROLLOUTS, TRACES_A_PART = 50_000, 50


def alive() -> int:
    """Rollouts in memory."""
    return sum(isinstance(found, Rollout) for found in gc.get_objects())


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[int]]]:
    """The stage `labels` over many rollouts, and how many were in memory whenever a part was written or read."""
    counts: list[int] = []
    write, read = files.write_table, files.read_table

    def counting_write(path: Path, rows: Any, cls: type) -> None:
        write(path, rows, cls)
        if cls is Rollout:
            counts.append(alive())

    def counting_read(path: Path, cls: type) -> list[Any]:
        found = read(path, cls)
        if cls is Rollout:
            counts.append(alive())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setattr(rollout_parts, "TRACES_A_PART", TRACES_A_PART)
        patch.setattr(files, "write_table", counting_write)
        patch.setattr(files, "read_table", counting_read)
        import streaming

        folder = tmp_path_factory.mktemp("simulated")
        found = streaming.simulate(ROLLOUTS, folder)
        assert found["rollouts"] >= ROLLOUTS and len(found["tenths"]) == 10
    yield folder / "labels", counts


def test_one_part_is_in_memory(simulated: tuple[Path, list[int]]):
    folder, counts = simulated
    sizes = [sum(files.tally(path, Rollout, "trace_id").values()) for path in (folder / "rollouts").iterdir()]
    assert len(sizes) >= 10 and sum(sizes) >= ROLLOUTS
    assert len(counts) == 4 * len(sizes)  # written; read for the labels, for the audit and for the noise
    longest = ROLLOUTS // 200  # of one trace, that may be in hand while the next part is read
    assert max(sizes) <= max(counts) <= max(sizes) + longest < 0.15 * ROLLOUTS


def test_what_is_made_is_as_if_all_were_in_memory(simulated: tuple[Path, list[int]]):
    folder, _ = simulated
    by_trace: dict[str, list[Rollout]] = defaultdict(list)
    for path in sorted((folder / "rollouts").iterdir()):
        for rollout in files.read_table(path, Rollout):
            by_trace[rollout.trace_id].append(rollout)
    traces = files.read_table(folder / "traces.parquet", Solution)
    made = labelling.make(traces, by_trace, "each", True)
    assert files.read_table(folder / "labels.parquet", StepLabels) == made
    assert files.read_table(folder / "balanced.parquet", StepLabels) == labelling.balance(made, 0)
    audit = files.read_json(folder / "audit.json")
    assert audit["noise"] == label_noise.of(traces, by_trace, "each", 8)
    strict = next(row for row in audit["ablation"] if row["name"] == "strict consistency")
    sizes = [len(entry.labels) for entry in labelling.make(traces, by_trace, "strict", False)]
    assert [pair[1] for pair in strict["per_trace"]] == sizes


def test_any_order_is_right(simulated: tuple[Path, list[int]]):
    parts = RolloutParts(simulated[0])
    names = list(parts)
    assert parts.count == sum(map(len, parts.values())) and len(parts) == len(names) == len(set(names))
    for name in (names[-1], names[0], names[len(names) // 2], names[0]):
        assert {rollout.trace_id for rollout in parts[name]} == {name}
    assert "nobody" not in parts and parts.get("nobody", ()) == ()


def test_a_damaged_part_is_named(tmp_path: Path):
    path = tmp_path / "rollouts" / "part-00000.parquet"
    files.write_table(path, [Rollout("a", 1, 0, (5, 2), (1,), "#### 1", True)], Rollout)
    assert RolloutParts(tmp_path)["a"][0].tokens == (5, 2)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"part-00000\.parquet: is not a whole Parquet table"):
        RolloutParts(tmp_path)


class Watched:
    """A stage whose bar is a list of what it was told."""

    def __init__(self, most: float):
        self.most, self.told = most, list[int]()

    @contextlib.contextmanager
    def progress(self, total: int, unit: str, label: str) -> Iterator[Any]:
        self.total, self.label = total, label
        yield self

    def advance(self, count: int) -> None:
        self.told.append(count)
        if len(self.told) > self.most:
            raise KeyboardInterrupt


def test_a_pass_over_all_is_shown(simulated: tuple[Path, list[int]]):
    watched = Watched(most=math.inf)
    with RolloutParts(simulated[0]).shown(watched, "answers") as parts:  # pyright: ignore[reportArgumentType]
        rollouts = sum(map(len, parts.values()))
    assert watched.label == "answers" and len(watched.told) >= 10
    assert sum(watched.told) == watched.total == rollouts


def test_reading_can_be_stopped(simulated: tuple[Path, list[int]]):
    watched = Watched(most=2)
    shown = RolloutParts(simulated[0]).shown(watched, "answers")  # pyright: ignore[reportArgumentType]
    with shown as parts, pytest.raises(KeyboardInterrupt):
        list(parts.values())
    assert len(watched.told) == 3


def test_without_rollouts_there_is_nothing(tmp_path: Path):
    parts = RolloutParts(tmp_path)
    assert (parts.count, len(parts), list(parts)) == (0, 0, [])


def test_traces_of_a_question_lie_in_one_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rollout_parts, "TRACES_A_PART", 20)
    sizes = [7, 12, 3, 19, 45, 1, 1]
    traces = [Solution(f"{q}/{k}", f"{q}", (2,), (1,), "#### 1", False) for q, n in enumerate(sizes) for k in range(n)]
    parts = [part for _, part in rollout_parts.split(Path("stage"), traces)]
    assert [trace for part in parts for trace in part] == traces
    assert [len(part) for part in parts] == [7, 15, 19, 20, 20, 7]  # 16 or fewer, but for whole questions, at most 20
    assert list(rollout_parts.split(Path("stage"), [])) == []
