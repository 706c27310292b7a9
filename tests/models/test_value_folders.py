"""Value models as token classification folders: out, in, and what other process reward models look like."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file, save_file

from glore_jax.errors import InputError
from glore_jax.models import huggingface, value_head
from glore_jax.models.value_head import ValueModel
from glore_jax.models.visibility import Visibility
from glore_jax.parallel import placement

RNG = np.random.default_rng(5)
WEIGHT, BIAS = RNG.normal(size=(2, 32)).astype(np.float32), RNG.normal(size=2).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def call(model: Any, params: Any, tokens_BxT: Any) -> jax.Array:
    return model.apply({"params": params}, tokens_BxT)


def folder_of(folder: Path, score: dict[str, np.ndarray]) -> Path:
    """A token classification folder of the tiny Llama."""
    raw = checkpoints.config("llama3")
    found = checkpoints.weights(raw)
    del found["lm_head.weight"]
    raw |= {"architectures": ["LlamaForTokenClassification"]}
    return checkpoints.write(folder, raw, found | score)


def value_model(folder: Path) -> tuple[ValueModel, Any]:
    """A value model of the project: a decoder with an unembedding that it does not use, and a head."""
    lm, params = huggingface.load(checkpoints.write(folder, checkpoints.config("llama3")))
    head = {"kernel": jnp.asarray(WEIGHT[1]), "bias": jnp.float32(0.25)}
    return ValueModel(lm.decoder), {"decoder": params, "value_head": head}


def test_a_value_model_comes_back_bit_by_bit(tmp_path: Path):
    model, params = value_model(tmp_path / "base")
    huggingface.save(model, params, tmp_path / "made")
    raw = json.loads((tmp_path / "made" / "config.json").read_text())
    assert raw["architectures"] == ["LlamaForTokenClassification"]
    assert raw["id2label"] == {"0": "wrong", "1": "right"}
    again, found = huggingface.load(tmp_path / "made")
    assert isinstance(again, ValueModel)
    assert "unembedding" not in found["decoder"]
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(found["value_head"][name], params["value_head"][name])
    huggingface.save(again, found, tmp_path / "twice")
    assert (tmp_path / "twice" / "model.safetensors").read_bytes() == (
        tmp_path / "made" / "model.safetensors"
    ).read_bytes()
    tokens = checkpoints.padded(checkpoints.prompts())
    values = call(again, found, tokens)
    assert values.shape == tokens.shape
    np.testing.assert_allclose(values, call(model, params, tokens), rtol=1e-6, atol=1e-6)


def test_a_value_model_lies_where_it_shall(tmp_path: Path):
    folder = folder_of(tmp_path, {"score.weight": WEIGHT, "score.bias": BIAS})
    _, whole = huggingface.load(folder)
    place = placement.make()
    for sharding in (place, NamedSharding(place.mesh, P("data"))):
        _, params = huggingface.load(folder, sharding=sharding)
        jax.tree.map(np.testing.assert_array_equal, params, whole)
        assert {x.sharding.mesh for x in jax.tree.leaves(params)} == {place.mesh}


@pytest.mark.parametrize("labels", [1, 2])
def test_values_of_one_label_or_two_are_the_odds_of_the_last(labels: int, tmp_path: Path):
    score = {"score.weight": WEIGHT[:labels], "score.bias": BIAS[:labels]}
    model, params = huggingface.load(folder_of(tmp_path, score))
    tokens = np.asarray([[5, 6, 7, 8]], np.int32)
    hidden = jax.jit(lambda p: model.decoder.apply({"params": p}, *causal(tokens))[0])(params["decoder"])
    scores = np.asarray(hidden)[0] @ WEIGHT[:labels].T + BIAS[:labels]
    expected = scores[:, 0] if labels == 1 else np.log(softmax(scores)[:, 1] / softmax(scores)[:, 0])
    np.testing.assert_allclose(call(model, params, tokens)[0], expected, rtol=1e-4, atol=1e-4)


def causal(tokens: np.ndarray) -> tuple[Any, ...]:
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    return tokens, positions, Visibility(jnp.ones_like(tokens))


def softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores)
    return raised / raised.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("score", "messages"),
    [
        ({}, ["missing tensor score.weight [2, 32]", "missing tensor score.bias [2]"]),
        (
            {"score.weight": np.zeros((3, 32), np.float32), "score.bias": np.zeros(3, np.float32)},
            ["score.weight has shape [3, 32], expected [2, 32], or 1 label"],
        ),
        (
            {"score.weight": np.full((2, 32), np.nan, np.float32), "score.bias": BIAS},
            ["score.weight has NaNs"],
        ),
    ],
)
def test_score_layers_that_are_none_are_refused(score: dict, messages: list[str], tmp_path: Path):
    with pytest.raises(InputError) as error:
        huggingface.load(folder_of(tmp_path, score))
    assert all(message in str(error.value) for message in messages)


def test_a_causal_folder_with_a_score_layer_is_refused(tmp_path: Path):
    folder = checkpoints.write(tmp_path, checkpoints.config("llama3"))
    found = load_file(folder / "model.safetensors") | {"score.weight": WEIGHT}
    save_file(found, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"unexpected tensor score.weight \[2, 32\]"):
        huggingface.load(folder)


def test_the_head_of_a_training_is_the_head_of_the_plain_call():
    hidden = jnp.asarray(RNG.normal(size=(2, 3, 32)), jnp.float32)
    head = {"kernel": jnp.asarray(WEIGHT[1]), "bias": jnp.float32(0.5)}
    np.testing.assert_allclose(value_head.apply(head, hidden), hidden @ WEIGHT[1] + 0.5, rtol=1e-5, atol=1e-5)
