"""Stages that train an adapter: later ones read merged weights, and PEFT finds the adapter beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import handmade
import jax
import numpy as np
import pytest
import smoke_run
import test_faults as toys
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from glore_jax import files, pipeline
from glore_jax.models import adapters, lora
from glore_jax.models.decoder import CausalLM
from glore_jax.records import Solution, StepLabels
from glore_jax.stages import artifacts, recipes, students
from glore_jax.training import checkpoints

pytestmark = pytest.mark.usefixtures("standard_promotion")

LAYERS = ("wq", "down")
TRAINED = ("sft", "orm", "sorm", "global_refiner", "expert_iteration")


def config_of(**changes: Any) -> ConfigDict:
    """Every training an adapter of rank 2, for three steps; causal, as published models are."""
    config = toys.small_config(**changes)
    with config.unlocked():
        for name in ("sft", "expert_iteration", "orm", "sorm", "refiner"):
            config[name].train.update({"steps": 3, "rows": 2, "optimizer": "adamw"})
            config[name].train.lora.update({"rank": 2, "layers": LAYERS})
        config.refiner.prefix_lm = False
    return config


def traces() -> list[Solution]:
    return [toys.gold(p, right, sample=int(right)) for p in toys.PROBLEMS for right in (False, True)]


def write_labels(folder: Path) -> None:
    found = traces()
    labels = [StepLabels(t.id, (1,) * (t.num_steps - 1) + (int(t.right),)) for t in found]
    files.write_table(folder / "traces.parquet", found, Solution)
    files.write_table(folder / "balanced.parquet", labels, StepLabels)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the trainings, their student being the base model itself."""
    workdir = tmp_path_factory.mktemp("lora") / "run"
    chain = [
        toys.given("problems", (), toys.write_problems),
        toys.given("base", (), toys.write_base),
        toys.given("expert_iteration", (), toys.write_base),
        toys.given("traces", (), lambda folder: files.write_table(folder / "traces.parquet", traces(), Solution)),
        toys.given("labels", (), write_labels),
        *(toys.STAGES[name] for name in ("sft", "orm", "sorm", "global_refiner")),
    ]
    with jax.numpy_dtype_promotion("standard"):
        pipeline.run(config_of(), workdir, chain)
    return workdir


def read(folder: Path) -> tuple[CausalLM, dict[str, Any], Any]:
    """The model, its decoder's parameters by path, and its head."""
    model, params = artifacts.read_model(folder, "float32")
    return CausalLM(model), flatten_dict(params["decoder"], sep="/"), params.get("value_head")


@pytest.mark.parametrize("stage", ["sft", "orm", "sorm", "global_refiner"])
def test_the_adapter_on_the_base_model_is_the_model(run: Path, stage: str):
    model, base, _ = read(run / "base")
    _, made, head = read(run / stage)
    config, adapter = adapters.load(run / stage / artifacts.ADAPTER, model)
    assert (config.rank, config.targets) == (2, LAYERS)
    marks = list(handmade.tokenizer().new_marks)
    _, params = artifacts.read_model(run / "base", "float32")
    merged = flatten_dict(lora.merge(params["decoder"], adapter, config), sep="/")
    for path, before in base.items():
        if path in ("embedding", "unembedding"):
            others = np.delete(np.arange(len(before)), marks)
            np.testing.assert_array_equal(made[path][others], before[others])
            assert stage != "global_refiner" or not np.array_equal(made[path][marks], before[marks])
        else:
            assert np.array_equal(made[path], before) == (path.rsplit("/", 1)[-1] not in LAYERS), path
            np.testing.assert_allclose(made[path], merged[path], atol=1e-6, rtol=1e-6)
    assert (head is not None) == (stage in ("orm", "sorm"))


def test_a_stage_cut_after_its_training_ends_the_same(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chain = [
        toys.given("problems", (), toys.write_problems),
        toys.given("base", (), toys.write_base),
        toys.STAGES["sft"],
    ]
    config, real = config_of(sft__train__checkpoint_seconds=-1), students.greedy

    def cut(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(students, "greedy", cut)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, tmp_path, chain)
    assert (tmp_path / "sft.partial" / artifacts.ADAPTER).is_dir()
    monkeypatch.setattr(students, "greedy", real)
    pipeline.run(config, tmp_path, chain)
    for path in (Path(artifacts.MODEL), Path(artifacts.ADAPTER) / adapters.WEIGHTS):
        assert (tmp_path / "sft" / path).read_bytes() == (run / "sft" / path).read_bytes()


def test_the_student_has_the_adapter_of_its_best_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The supervised student is never right, that of the first round always, so another one is not trained."""
    calls = []

    def sample(engine: Any, tokenizer: Any, rows: Any, count: int, *_: Any) -> list[Solution]:
        calls.append(count)
        return [toys.gold(p, right=len(calls) > 1, sample=n) for p in rows for n in range(count)]

    monkeypatch.setattr(students.solutions, "sample", sample)
    chain = [
        toys.given("problems", (), toys.write_problems),
        toys.given("base", (), toys.write_base),
        toys.given("sft", (), write_student),
        toys.STAGES["expert_iteration"],
    ]
    pipeline.run(config_of(expert_iteration__rounds=1), tmp_path, chain)
    folder = tmp_path / "expert_iteration"
    assert files.read_json(folder / "history.json") == [0.0, 1.0]
    model, base, _ = read(tmp_path / "base")
    config, adapter = adapters.load(folder / artifacts.ADAPTER, model)
    _, made, _ = read(folder)
    merged = lora.merge(artifacts.read_model(tmp_path / "base", "float32")[1]["decoder"], adapter, config)
    np.testing.assert_allclose(made["mlp_0/down"], merged["mlp_0"]["down"], atol=1e-6, rtol=1e-6)
    assert not np.array_equal(made["mlp_0/down"], base["mlp_0/down"])


def write_student(folder: Path) -> None:
    toys.write_base(folder)
    files.write_json(folder / artifacts.CURVE, [])


def test_a_model_that_peft_cannot_have_leaves_no_adapter(tmp_path: Path):
    """One that reads the question in both directions is of no family of Hugging Face."""

    def write_both_ways(folder: Path) -> None:
        toys.write_base(folder)
        params, config = checkpoints.load_model(folder / artifacts.MODEL)
        checkpoints.save_model(folder / artifacts.MODEL, params, config | {"prefix_lm": True})

    chain = [
        toys.given("problems", (), toys.write_problems),
        toys.given("base", (), write_both_ways),
        toys.STAGES["sft"],
    ]
    pipeline.run(config_of(), tmp_path, chain)
    assert (tmp_path / "sft" / artifacts.MODEL).is_file()
    assert not (tmp_path / "sft" / artifacts.ADAPTER).exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_pipeline_runs_with_adapters(tmp_path: Path):
    trainings = ("sft", "expert_iteration", "orm", "sorm", "refiner")
    options = [f"--config.{name}.train.lora.rank=4" for name in trainings]
    done = smoke_run.call(smoke_run.command(tmp_path / "run", *options))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"all {len(recipes.GLORE)} stages are done" in done.stdout
