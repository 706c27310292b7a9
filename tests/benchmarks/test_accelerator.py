"""benchmarks/accelerator.py: it runs on a tiny model, counts what it says, and says what it could not measure."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Row = dict[str, Any]


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import accelerator

    return accelerator


@pytest.mark.slow
def test_the_small_one_measures_every_part(accelerator: Any):
    """As it is typed; on one device, as the accelerator is one."""
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), "--small"]
    env = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=800, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    rows: list[Row] = [json.loads(line) for line in done.stdout.splitlines()]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row.get("part", ""), []).append(row)
    assert set(lines) == {"", "ceilings", *accelerator.PARTS}
    assert all("wall_seconds" in lines[part][-1] for part in accelerator.PARTS)
    assert next(row["part"] for row in rows if row.get("part") in accelerator.PARTS) == "peer"  # before all else
    (ceilings,), (decode, _), (prefill, _) = (lines[part] for part in ("ceilings", "decode", "prefill"))
    # Of the tiny model: two layers of 2 * 64 * (4 + 2) * 16 + 3 * 64 * 96 weights, and a table of 256 * 64; two bytes
    # each. Eight slots see 16 + 8 columns, keys and values of two heads of 16 numbers in each layer.
    assert decode["bytes"] == 2 * (2 * 30_720 + 16_384) + 8 * 24 * 2 * 2 * 2 * 16 * 2
    assert decode["share"] == pytest.approx(
        decode["bytes"] / decode["seconds"] / ceilings["copy_bytes_a_second"], rel=0.01
    )
    # 64 tokens, that see eight keys each on average: the first layer; of the second keys and values alone.
    assert prefill["flops"] == pytest.approx(64 * (2 * 30_720 + 4 * 4 * 16 * 8 + 2 * 64 * 2 * 2 * 16), rel=0.001)
    for part in ("decode", "prefill", "language", "value"):
        row = lines[part][0]
        assert row["goal"] == accelerator.GOALS[part] and row["reached"] == (row["share"] >= row["goal"])
        assert ("times_as_fast" in row) == (importlib.util.find_spec("transformers") is not None)
    shared, alone, _, _ = lines["rollouts"]
    # Two drafts of 8 + 8 * 3 tokens; or for each of 2 * 8 rollouts of every step what comes before it.
    assert shared["prefilled_tokens"] == 2 * 32
    assert alone["prefilled_tokens"] == 2 * 8 * sum(8 + 3 * i for i in range(1, 9))


def test_where_torch_is_absent_it_says_so(accelerator: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "accelerator_peer", raising=False)
    found = accelerator.card_of_torch()
    assert isinstance(found, str) and "torch" in found and "`parity`" in found


def test_a_part_that_fails_is_named_and_the_lines_before_it_stay(accelerator: Any, capsys: pytest.CaptureFixture[str]):
    def rows() -> Iterator[Row]:
        yield {"seconds": 0.123456}
        raise RuntimeError("RESOURCE_EXHAUSTED: no room")

    assert not accelerator.measured("decode", rows(), time.monotonic() + 60)
    first, failed, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"part": "decode", "seconds": 0.1235}
    assert failed == {"part": "decode", "failed": "RuntimeError: RESOURCE_EXHAUSTED: no room"}
    assert "wall_seconds" in last


def test_what_there_is_no_time_for_is_named(accelerator: Any, capsys: pytest.CaptureFixture[str]):
    assert accelerator.measured("prefill", iter([{"seconds": 1.0}]), time.monotonic() - 1)
    assert "time is over" in json.loads(capsys.readouterr().out.splitlines()[0])["left_out"]
