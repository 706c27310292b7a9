"""`glore check`: what it counts is what a run does, and what cannot work is refused before anything runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import checkpoints as folders
import jax
import numpy as np
import pytest
import vocabularies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glore_jax import cli, configuration
from glore_jax.errors import InputError
from glore_jax.method import expert_iteration as ei
from glore_jax.models import huggingface
from glore_jax.parallel import mesh as meshes
from glore_jax.parallel.placement import Placement
from glore_jax.stages import checking, taking_base
from glore_jax.tasks import load
from glore_jax.training import checkpoints, loop

CONFIG = Path(__file__).parents[2] / "configs" / "arithmetic.py"
# Room for a tokenizer that takes many tokens.
LONG = {"sampling__buckets": (900,), "refiner__train__row_length": 1200}
LONG |= {f"{name}__train__row_length": 1000 for name in ("sft", "expert_iteration", "orm", "sorm")}


def config_of(**changes: Any) -> ConfigDict:
    """The smoke configuration with a few keys changed; a double underscore stands for the dot."""
    config = configuration.load(f"{CONFIG}:smoke")
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def test_what_is_counted_is_what_the_stages_do():
    config = config_of(sft__train__steps=0)
    made = checking.plan(config)
    params, _ = checkpoints.load_model(taking_base.folder_of(config) / "model.safetensors")
    assert made.parameters == sum(x.size for x in jax.tree.leaves(params))
    assert made.problems == {"train": 112, "dev": 32, "test": 32}
    work = {item.stage: item for item in made.work}
    train = load(config.task).train
    examples = ei.gold_examples(taking_base.tokenizer_of(config), train, made.model.prefix_lm)
    assert work["sft"].steps == loop.steps_of(config.sft.train, examples)
    assert work["sft"].trained == work["sft"].steps * config.sft.train.rows * config.sft.train.row_length
    assert work["traces"].samples == 112 * config.traces.per_problem
    assert work["test"].samples == 32 * (6 + config.evaluation.samples)
    assert work["orm"].steps == config.orm.train.steps
    mean = sum(p.solution.count("\n") for p in train) / 112  # prefixes: one less than the steps
    assert made.rollouts == work["labels"].samples == math.ceil(64 * mean * config.labels.rollouts)
    assert made.training["parameters"] == made.training["gradients"] == 4 * made.parameters
    assert made.training["optimizer"] <= 2 * made.training["parameters"] + 100
    c, columns = made.model, 432 + config.sampling.max_new_tokens
    token = 2 * c.num_layers * c.num_kv_heads * c.head_dim * 4  # bytes of keys and values
    assert made.sampling["sources"] == config.sampling.sources * 432 * token
    assert made.sampling["slots"] == pytest.approx(config.sampling.slots / 2 * columns * token, rel=0.01)


def test_an_adapter_is_counted_as_what_learns_and_what_stays():
    """By hand: of rank 2 on wq [64, 128] and down [192, 64] in four layers, and thirteen marks in two tables."""
    plain = checking.plan(config_of())
    config = config_of()
    for settings in checking._trainings(config).values():
        settings.lora.update({"rank": 2, "layers": ("wq", "down")})
    made = checking.plan(config)
    count = 2 * 4 * (64 + 128 + 192 + 64) + 2 * 13 * 64
    assert plain.learning == {}
    assert made.learning["sft.train"] == made.learning["refiner.train"] == count
    assert made.learning["orm.train"] == count + 2 * (64 + 1)  # the value head, with its gate
    assert made.training["parameters"] == 4 * (made.parameters + count)
    assert made.training["gradients"] == 4 * count
    assert made.training["optimizer"] <= 2 * 4 * count + 100 < plain.training["optimizer"]
    assert made.training["merged layers"] == 2 * 4 * 64 * (128 + 192)  # in bfloat16
    assert made.training["logits"] == plain.training["logits"]

    config.sft.train.lora.rank = 0  # then this is the training that takes most
    mixed = checking.plan(config)
    assert "sft.train" not in mixed.learning
    assert mixed.training == plain.training


def test_a_published_folder_is_checked_without_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folders.write(tmp_path, folders.config("qwen3") | {"vocab_size": 510, "max_position_embeddings": 4096})
    vocabularies.make("byte_level", tmp_path)
    monkeypatch.setattr(huggingface, "load", None)
    made = checking.plan(config_of(base__path=str(tmp_path), **LONG))
    tokenizer = taking_base.tokenizer_of(config_of(base__path=str(tmp_path)))
    assert made.model.vocab_size == tokenizer.vocab_size > 510
    assert made.model.qk_norm


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "base"}, "counts runs of the recipe glore only"),
        ({"sft__train__rows": 3}, r"sft\.train\.rows=3 does not divide by the 2 devices"),
        ({"sampling__slots": 5}, r"sampling\.slots=5 does not divide"),
        ({"sft__train__row_length": 60}, r"sft\.train\.row_length=60: no room .* the bucket \d+; make it"),
        ({"refiner__train__row_length": 432}, r"refiner\.train\.row_length=432: no room .* the bucket 432"),
        ({"orm__train__optimizer": "sgd"}, "unknown optimizer 'sgd'"),
        ({"orm__train__lora__rank": 65}, r"orm\.train\.lora\.rank=65: the layer wq is 64 x 128; expected 1 to 64"),
        (
            {"refiner__train__lora__rank": 2, "refiner__train__lora__layers": ("w_q",)},
            r"no linear layer 'w_q'; did you mean wq",
        ),
        ({"value__init": "orm"}, r"value\.init='orm': expected one of base, student"),
        ({"refiner__init": "orm"}, r"refiner\.init='orm': expected one of base, student"),
        ({"labels__consistency": "all"}, r"labels\.consistency='all': expected one of each, strict, off"),
        ({"sorm__target": "soft"}, r"sorm\.target='soft': expected one of any, share, ratio"),
        ({"evaluation__ranker": "prm"}, r"evaluation\.ranker='prm': expected one of orm, sorm"),
        ({"sampling__buckets": (300,)}, "questions are longer than the 0 tokens that fit"),
        ({"base__path": "nowhere"}, r"base\.path=nowhere: no such folder"),
        ({"base__adapter": "nowhere"}, r"base\.adapter=nowhere: no such folder; expected one with adapter_config"),
        ({"base__marks": "text"}, "own tokenizer has its marks as tokens"),
        ({"base__chat": True}, "own tokenizer has its marks as tokens, and no chat template"),
        ({"sft__train__steps": 0, "sft__train__epochs": 0.0}, r"sft\.train: steps and epochs are both 0"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        checking.plan(config_of(**changes))


def test_slots_and_sources_are_those_of_a_process(monkeypatch: pytest.MonkeyPatch):
    """Of two processes with a device each, as if this were one of them."""
    alone = Placement(Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), meshes.AXES))
    monkeypatch.setattr(Placement, "of_process", lambda place: alone)
    made = checking.plan(config_of(sampling__slots=5, sampling__sources=3))
    monkeypatch.undo()
    other = checking.plan(config_of(sampling__slots=10, sampling__sources=4))
    assert made.sampling["slots"] == other.sampling["slots"]
    with pytest.raises(InputError, match=r"sampling\.sources=3 does not divide by the 2 devices"):
        checking.plan(config_of(sampling__sources=3))


def test_a_run_refuses_them_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)
    workdir = tmp_path / "run"
    command = ["run", f"--config={CONFIG}:smoke", f"--workdir={workdir}", "--config.evaluation.ranker=prm"]
    assert cli.main(command) == 2
    assert "evaluation.ranker='prm': expected one of orm" in capsys.readouterr().err
    assert not workdir.exists()


def test_sequences_longer_than_the_model_was_made_for_are_refused(tmp_path: Path):
    folders.write(tmp_path, folders.config("llama2") | {"vocab_size": 640})  # made for 128 positions
    vocabularies.make("byte_level", tmp_path)
    with pytest.raises(InputError, match=r"sft\.train\.row_length: 1000 tokens, and the model was made for 128"):
        checking.plan(config_of(base__path=str(tmp_path), **LONG))


def test_a_device_with_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    class Small:
        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 1000}

    monkeypatch.setattr(checking.jax, "local_devices", lambda: [Small()])
    with pytest.raises(InputError, match=r"training takes 3.9 KiB on each device at least, which has 1000 B") as error:
        checking._check_memory({"parameters": 4000}, {"parameters": 0})
    assert "smaller base model" in str(error.value)


def test_the_command_prints_the_plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)
    assert cli.main(["check", f"--config={CONFIG}:smoke", "--config.task.train=20"]) == 0
    out = capsys.readouterr().out
    assert "parameters learn" not in out
    assert "problems: train 20, dev 32, test 32" in out
    assert "memory on each device, activations aside" in out
    assert "rollouts: " in out
    assert cli.main(["check", f"--config={CONFIG}:smoke", "--config.refiner.train.lora.rank=1"]) == 0
    count = 4 * (2 * (64 + 128) + 2 * (64 + 64)) + 2 * 13 * 64  # of rank 1 on wq, wo, wk and wv; and thirteen marks
    assert f"refiner.train: {count:,} parameters learn (LoRA), the others stay" in capsys.readouterr().out
    assert cli.main(["check", f"--config={CONFIG}:smoke", "--config.sft.train.rows=3"]) == 2
    assert "does not divide by the 2 devices" in capsys.readouterr().err
