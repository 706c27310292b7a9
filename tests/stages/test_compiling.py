"""`glore compile`: what it prints and how it exits; with the TPU compiler where libtpu is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import rich
from jax.experimental.compilation_cache import compilation_cache

from glore_jax import cli, commands, configuration
from glore_jax.errors import InputError
from glore_jax.parallel import topologies
from glore_jax.parallel.collectives import Moved
from glore_jax.parallel.programs import Memory
from glore_jax.parallel.roofline import Roofline
from glore_jax.stages import compiling, counting, fitting, programs, taking_base
from glore_jax.stages.programs import Compiled, Program, Run

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = f"{CONFIGS / 'arithmetic.py'}:smoke"
PUBLISHED = str(CONFIGS / "gsm8k_llama2_13b.py")
with_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the extra `tpu-compile` is not installed"
)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the cache of compilations, which `glore compile` turns off; tests after these have it again."""
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)
    before = jax.config.jax_platforms
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_platforms", before)
    compilation_cache.reset_cache()


def pretended(run: Run, program: Program, made: Any = None, refusal: str = "") -> Compiled:
    """As if a compiler had said so."""
    if refusal:
        return Compiled(program, refusal, 1.0)
    memory, moved = (
        Memory(2**30, 2**20, 2**28, 2**31),
        Moved({"all-reduce": 8}, {"all-reduce": 8}, {"all-reduce": 1}, 0),
    )
    return Compiled(program, "", 1.0, memory, moved, Roofline(0.001, 0.002, 0.0005), "0123456789abcdef")


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of two chips, the CPU devices here, whose programs need no compiler."""
    monkeypatch.setattr(topologies, "devices", lambda slice_: jax.devices())
    monkeypatch.setattr(Run, "program", program)
    monkeypatch.setattr(programs, "compile", pretended)


def program(run: Run, stage: str, steps: int = 1) -> Program:
    return Program(stage, None, 2e12, 4096, 2**30, beside=2**20 if stage == "decode" else 0)  # pyright: ignore


@pytest.mark.usefixtures("pod")
def test_the_whole_run_as_json(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["compile", f"--config={SMALL}", "--topology=v5e-8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["slice"] == {
        "name": "v5e-8",
        "topology": "v5e:2x4",
        "chips": 8,
        "chip": {"memory": int(15.75 * 2**30), "flops": 197e12, "memory_rate": 819e9, "link_rate": 200e9},
    }
    assert list(found["stages"]) == [*programs.STAGES]
    row = found["stages"]["decode"]
    assert row["memory"] == {
        "arguments": 2**30, "results": 2**20, "temporaries": 2**28, "peak": 2**31, "beside": 2**20
    }  # fmt: skip
    assert row["moved"] == {
        "bytes": {"all-reduce": 8},
        "sent": {"all-reduce": 8},
        "times": {"all-reduce": 1},
        "endless": 0,
    }
    assert row["roofline"] == {"compute": 0.001, "memory": 0.002, "links": 0.0005, "seconds": 0.002, "bound": "memory"}
    assert row["tokens_per_second"] == 4096 / 0.002
    assert (row["fits"], row["refusal"], row["fingerprint"]) == (True, "", "0123456789abcdef")
    stages = {item["stage"]: item for item in found["experiment"]["stages"]}
    traces = stages["traces"]
    sources = traces["sources"] * 4096 / 32  # a prefill reads 4096 tokens of 32 sources
    assert traces["seconds"] == pytest.approx((sources + traces["written"]) * 0.002 / 4096)
    assert traces["chip_hours"] == pytest.approx(traces["seconds"] * 8 / 3600)
    assert stages["orm_balanced"]["seconds"] == pytest.approx(stages["orm"]["trained"] * 0.002 / 4096)
    assert found["experiment"]["chip_hours"] == pytest.approx(sum(item["chip_hours"] for item in stages.values()))
    assert found["experiment"]["rollouts"] == stages["labels"]["samples"] > 0
    assert all(isinstance(line, str) for line in found["assumptions"])


@pytest.mark.usefixtures("pod")
def test_the_whole_run_as_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rich.get_console(), "width", 160)  # the environment says it only before the console is made
    assert cli.main(["compile", f"--config={SMALL}", "--topology=v5e:2x4", "--stage=decode"]) == 0
    shown = capsys.readouterr().out
    assert "v5e-8: 8 chips of 15.8 GiB; mesh: data 2" in shown
    assert "13%" in shown  # two GiB at the peak, and one MiB beside
    assert "all-reduce 8 B" in shown and "2,048,000" in shown and "memory" in shown
    assert "chip-hours" not in shown  # of one stage


@pytest.mark.usefixtures("pod")
def test_what_does_not_fit_is_said_with_what_does(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def refusing(run: Run, program: Program, made: Any = None) -> Compiled:
        return pretended(run, program, made, "" if run.config.sft.train.micro_batches >= 4 else "40 GiB of 15.75 GiB")

    monkeypatch.setattr(programs, "compile", refusing)
    words = ["compile", f"--config={SMALL}", "--topology=v5e-8", "--stage=sft", "--config.sft.train.rows=16"]
    assert cli.main([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["stages"]["sft"] == found["stages"]["sft"] | {"fits": False, "memory": None, "roofline": None}
    assert found["change"]["typed"] == "--config.sft.train.micro_batches=4"
    assert cli.main(words) == 1
    assert "what fits, and costs least: --config.sft.train.micro_batches=4" in capsys.readouterr().out


@pytest.mark.usefixtures("pod")
def test_changes_are_tried_by_cost(monkeypatch: pytest.MonkeyPatch):
    config = configuration.load(SMALL, ["--config.sft.train.rows=8"])
    tried = []

    def refusing(run: Run, program: Program, made: Any = None) -> Compiled:
        assert run.slice is not None
        train = run.config.sft.train
        tried.append((train.rows, train.micro_batches, train.remat, run.config.sharding.preset, run.slice.name))
        return pretended(run, program, made, "too large")

    monkeypatch.setattr(programs, "compile", refusing)
    assert fitting.cheapest(config, topologies.parse("v5e-64"), "sft") is None
    less = [(8, 2, "none"), (8, 4, "none"), (8, 16, "none"), (8, 1, "full"), (8, 16, "full"), (1, 1, "full")]
    split = [(64, 1, "none", "fsdp"), (32, 1, "none", "tensor")]
    assert tried == [*((*change, "replicated", "v5e-64") for change in less), *((*one, "v5e-64") for one in split)]

    tried.clear()
    monkeypatch.setattr(
        Run, "program", lambda run, stage, steps=1: dataclasses.replace(program(run, stage), arguments=2**35)
    )
    assert fitting.cheapest(config, topologies.parse("v5e-256"), "sft") is None
    assert tried == []  # arguments alone are more than a chip has


def test_a_model_is_split_with_the_rows_that_it_needs_for_that():
    """13B has 40 key heads, and a vocabulary that the marks make odd."""
    config = configuration.load(PUBLISHED, [])
    slice_ = topologies.parse("v5e-256")
    fsdp, tensor = (fitting.Change(keys, slice_).text for keys in fitting._split(config, slice_, "sft"))
    assert fsdp == "--config.sharding.preset=fsdp --config.sft.train.rows=256"
    assert tensor.split() == [
        "--config.sharding.preset=tensor", "--config.sharding.tensor=8", "--config.sharding.rules=vocab=none,",
        "--config.sft.train.rows=32",
    ]  # fmt: skip
    changed = configuration.load(PUBLISHED, tensor.split())
    assert (changed.sharding.rules, changed.sft.train.rows) == (("vocab=none",), 32)


def test_of_a_published_model_neither_folder_nor_problems_are_needed():
    config: Any = configuration.load(PUBLISHED)
    model, marks = taking_base.planned(config)
    assert (model.num_layers, model.vocab_size, marks) == (40, 32_013, tuple(range(32_000, 32_013)))
    config.base.marks = "text"
    assert taking_base.planned(config)[1] == ()
    given = compiling.checking.given(config)
    assert (given.problems["test"], given.prefixes, given.measured) == (1319, counting.STEPS - 1, False)
    work = {item.stage: item for item in counting.of_stages(config, given)}
    assert work["labels"].samples == 6726 * 7 * 8  # one wrong trace a problem, seven prefixes, eight rollouts
    config.base.path = "models/Nobody-knows-7B"
    with pytest.raises(InputError, match=r"'Nobody-knows-7B' are not known.*Llama-2-13b-hf"):
        taking_base.planned(config)


def test_a_fingerprint_needs_no_tpu_compiler(capsys: pytest.CaptureFixture[str]):
    words = ["compile", f"--config={SMALL}", "--stage=prefill", "--fingerprint", "--json"]
    found = []
    for changes in ([], [], ["--config.sampling.sources=16"]):
        assert cli.main([*words, *changes]) == 0
        found.append(json.loads(capsys.readouterr().out)["prefill"])
    assert len(found[0]) == 16
    assert found[0] == found[1] != found[2]


def test_a_slice_has_to_be_named(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["compile", f"--config={SMALL}"]) == 2
    assert "--topology is missing" in capsys.readouterr().err
    assert cli.main(["compile", f"--config={SMALL}", "--topology=v5e-7"]) == 2
    assert "v5e:2x4 (v5e-8)" in capsys.readouterr().err
    assert cli.main(["compile", f"--config={CONFIGS / 'label.py'}", "--fingerprint"]) == 2
    assert "knows the stages of the recipe glore" in capsys.readouterr().err


def test_the_command_line_knows_the_stages():
    assert commands.COMPILED == programs.STAGES


@with_libtpu
def test_a_small_config_compiles_for_a_small_slice(capsys: pytest.CaptureFixture[str]):
    words = ["compile", f"--config={SMALL}", "--topology=v5e:2x2", "--stage=prefill"]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["stages"]["prefill"]
    parameters = 4 * sum(x.size for x in jax.tree.leaves(Run(configuration.load(SMALL))._decoder))
    memory = found["memory"]  # what comes behind the keys and values of the last layer is not read
    assert 0.9 * parameters < memory["arguments"] < parameters
    assert memory["arguments"] < memory["peak"]
    assert found["moved"]["bytes"] == {}  # every device has the whole model, and reads its own sources
    assert cli.main([*words, "--fingerprint", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"prefill": found["fingerprint"]}


@with_libtpu
def test_too_many_slots_are_refused_by_the_compiler():
    config = configuration.load(SMALL, [f"--config.sampling.slots={2**18}"])
    slice_ = topologies.parse("v5e:2x2")
    run = Run(config, slice_, topologies.devices(slice_))
    found = programs.compile(run, run.program("decode"))
    assert "exceeds available HBM (15.75G)" in found.refusal or "beside" in found.refusal


def test_what_is_more_than_a_chip_has_without_temporaries_is_not_compiled():
    slice_ = topologies.parse("v5e:2x2")
    program = Program("sft", lambda: pytest.fail("lowered"), 1.0, 1, arguments=2**34, beside=2**30)  # pyright: ignore
    found = programs.compile(Run(configuration.load(SMALL), slice_), program)
    assert found.refusal == "arguments alone take 16.0 GiB beside 1.0 GiB that stay, of 15.8 GiB"
    assert found.memory is None


@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_weights_that_leave_no_room_for_a_slot_are_refused_as_that(stage: str):
    """Nobody said how many slots there are, and there is room for none."""
    run = Run(configuration.load(PUBLISHED, ["--config.sampling.slots=0"]), topologies.parse("v5e:2x2"))
    found = programs.compile(run, run.program(stage))
    assert re.fullmatch(r"arguments alone take 2\d\.\d GiB beside .* that stay, of 15\.8 GiB", found.refusal)
