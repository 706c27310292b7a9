"""What is recorded of a training: every step once, whatever was killed, and what a trace and a rate are."""

from __future__ import annotations

import contextlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.goodput import Clock
from glore_jax.models import value_head
from glore_jax.training import batches, bookkeeping, loop, losses, rates, writers
from glore_jax.training.telemetry import Telemetry

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEP = {"loss", "accuracy", "weight", "gradient_norm", "input_seconds"}
RATES = {"tokens_per_second", "flops_per_second", "host_peak_memory_bytes"}


def value_examples() -> list[batches.Example]:
    """Three steps each; the first two have labels."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 40, (12, 6)).tolist()
    return [batches.value_example([5], row, [2, 4, 6], [n % 2, 1, -1]) for n, row in enumerate(tokens)]


def train(folder: Path, telemetry: Telemetry | None = None, **options: Any) -> loop.Trained:
    model, params = tiny.random_decoder()
    start = {"decoder": params, "value_head": value_head.init(jax.random.key(0), model.config.d_model)}
    telemetry = telemetry or Telemetry(folder / "metrics")
    advance = options.pop("advance", lambda tokens, metrics: None)
    settings = tiny.training(**({"checkpoint_seconds": -1} | options))
    return loop.train(
        model, start, losses.value, value_examples(), settings, 0, folder / "saved", advance, telemetry=telemetry
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics" / writers.LINES).read_text().splitlines()]


def test_every_step_is_written_once_whatever_was_killed(tmp_path: Path):
    train(tmp_path / "uncut")
    uncut = rows(tmp_path / "uncut")
    assert [row["step"] for row in uncut] == [1, 2, 3, 4, 5, 6]
    by_prefix = {"accuracy_by_prefix/1", "accuracy_by_prefix/2"}  # no third step has a label
    assert set(uncut[1]) == {"step", "time"} | STEP | RATES | by_prefix
    with pytest.raises(tiny.Cut):
        train(tmp_path / "cut", advance=tiny.cut_at(4))
    path = tmp_path / "cut" / "metrics" / writers.LINES
    with open(path, "a") as file:  # written, but of a step behind the checkpoint; and cut in its middle
        file.write('{"step": 4, "time": 0.0, "loss": 9.0}\n{"step": 5, "ti')
    train(tmp_path / "cut")
    same = STEP - {"input_seconds"} | by_prefix | {"step"}
    assert [{k: v for k, v in row.items() if k in same} for row in rows(tmp_path / "cut")] == [
        {k: v for k, v in row.items() if k in same} for row in uncut
    ]
    told = json.loads((tmp_path / "cut" / "metrics" / "settings.json").read_text())
    assert told["operations a token, formula"] == rates.FORMULA and told["learning_rate"] == 0.01


def test_metrics_are_read_once_the_next_step_is_on_its_way():
    read: list[int] = []
    books = bookkeeping.Books(3, False, lambda number: "", {}, lambda number, values: read.append(number))
    for number in (1, 2, 3):
        books.expect(number, {"loss": np.float32(1.0), "gradient_norm": np.float32(1.0)}, 0.0)
        assert read == list(range(1, number))
    books.read()
    assert read == [1, 2, 3]


def test_tensorboard_has_every_step_once_too(tmp_path: Path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with pytest.raises(tiny.Cut):
        train(tmp_path, advance=tiny.cut_at(5))
    train(tmp_path)
    (path,) = (tmp_path / "metrics").glob("events.out.tfevents.*")
    data, found = path.read_bytes(), []
    while data:  # length, its checksum, the event, its checksum
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value if v.tag == "loss"]
        data = data[16 + size :]
    assert found == [(row["step"], "loss", pytest.approx(row["loss"])) for row in rows(tmp_path)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["lines", "events"])
def test_a_full_disk_names_the_file_and_stops_nothing_but_the_run(
    tmp_path: Path, room: Callable[[int], Any], kind: str
):
    if kind == "events":
        pytest.importorskip("tensorboardX")
    made = writers.JsonLines(tmp_path / writers.LINES, 0) if kind == "lines" else writers.TensorBoard(tmp_path, [])
    (path,) = tmp_path.iterdir()
    with room(2000), pytest.raises(InputError, match=f"{path}: cannot be written"), contextlib.closing(made):
        for step in range(10_000):
            made.scalars(step, {"loss": 1.0})


def test_accuracy_by_prefix_by_hand():
    """Of the labels at the first step of a solution, at the second, ...: those that are right, over all."""
    model, params = tiny.random_decoder()
    head = value_head.init(jax.random.key(0), model.config.d_model)
    long = batches.value_example([5], range(10, 22), range(1, 13), [1] * 12)
    batch = next(batches.epochs([long, *value_examples()[:1]], 32, 1, 0))
    _, sums = losses.value(model, {"decoder": params, "value_head": head}, batch)
    assert sums["weight_by_prefix"].tolist() == [2, 2, 1, 1, 1, 1, 1, 5]  # the last one: of eight steps and more
    assert float(sums["right_by_prefix"].sum()) == float(sums["accuracy"])
    found = bookkeeping.by_prefix({name: np.asarray(x) for name, x in sums.items()})
    assert set(found) == {f"accuracy_by_prefix/{n}" for n in range(1, 9)}


def test_numbers_that_are_none_are_null(tmp_path: Path):
    with writers.opened(tmp_path, 0) as writer:
        writer.scalars(1, {"loss": float("nan"), "accuracy": 0.5})
    assert json.loads((tmp_path / writers.LINES).read_text())["loss"] is None


def test_weights_and_biases_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[Any] = []

    class Run:
        config = types.SimpleNamespace(
            update=lambda values, allow_val_change: told.append(("settings", values["rows"]))
        )

        def log(self, values: dict[str, float], step: int) -> None:
            told.append((step, values["loss"]))

        def finish(self) -> None:
            told.append("finish")

    def init(**given: Any) -> Run:
        told.append((given["project"], given["name"], given["id"], given["resume"]))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    train(tmp_path, Telemetry(tmp_path / "metrics", "run/sft/train", wandb="glore"))
    losses_of = [(row["step"], row["loss"]) for row in rows(tmp_path)]
    assert told == [("glore", "run/sft/train", "run-sft-train", "allow"), ("settings", 2), *losses_of, "finish"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"--wandb needs the extra .* pip install 'glore_jax\[wandb\]'"):
        train(tmp_path / "again", Telemetry(tmp_path / "again", wandb="glore"))


def test_a_trace_of_the_steps_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(tmp_path, Telemetry(tmp_path / "metrics", profile=(3, 4)))
    (trace,) = (tmp_path / "metrics" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000
    assert f"trace: {tmp_path / 'metrics'}/plugins/profile\n" in capsys.readouterr().out
    train(tmp_path / "short", Telemetry(tmp_path / "short", "sft/train", profile=(7, 9)))
    assert "sft/train: no trace, because it ends before step 7\n" in capsys.readouterr().out


def test_xprof_opens_the_trace(tmp_path: Path):
    convert = pytest.importorskip("xprof.convert.raw_to_tool_data", reason="the extra `profile` is not installed")
    train(tmp_path, Telemetry(tmp_path / "metrics", profile=(3, 4)))
    traces = [str(path) for path in (tmp_path / "metrics").glob("plugins/profile/*/*.xplane.pb")]
    assert "overview_page" in convert.xspace_to_tool_names(traces)
    shown, kind = convert.xspace_to_tool_data(traces, "trace_viewer", {})
    events = json.loads(shown)["traceEvents"]
    assert kind == "application/json" and any(
        "jit_unguarded_step" in event["name"] for event in events if "name" in event
    )


def test_operations_by_hand():
    """Six for what learns, four for what stays, and the attention over a row."""
    model, params = tiny.random_decoder()
    c = model.config
    sizes = [x.size for x in jax.tree.leaves(params)]
    assert rates.multiplied({"decoder": params}) == sum(sizes) - params["embedding"].size
    assert rates.operations(c, 100, 10, 50) == 600 + 40 + 12 * c.num_layers * c.num_heads * c.head_dim * 50
    speed = rates.Rates(tokens=64, operations=1000)
    found = speed.of(0.5)
    assert (found["tokens_per_second"], found["flops_per_second"]) == (128.0, 128_000.0)
    assert "mfu" not in found  # nobody knows the peak of a CPU


def test_mfu_is_a_share_of_all_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rates, "peak", lambda kind: 1e6)
    assert rates.Rates(64, 1000).of(0.5)["mfu"] == 128_000 / (2 * 1e6)


def test_the_time_of_a_training_is_shared_out(tmp_path: Path):
    clock = Clock(tmp_path / "time.json")
    train(tmp_path, Telemetry(tmp_path / "metrics", clock=clock))
    spent = clock.seconds
    assert all(spent[kind] > 0 for kind in ("steps", "checkpoint", "input"))
    assert spent["lost"] == spent["sampling"] == 0
