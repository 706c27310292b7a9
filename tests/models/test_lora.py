"""Adapters: what merging computes, what learns, and PEFT folders that come back or are refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from glore_jax.errors import InputError
from glore_jax.models import adapters, decoder, huggingface, lora
from glore_jax.models.decoder import CausalLM, Decoder
from glore_jax.models.lora import LoraConfig
from glore_jax.training import losses

DECODER, PARAMS = tiny.random_decoder()
MODEL = CausalLM(DECODER)
EVERYWHERE = LoraConfig(rank=3, alpha=6.0, targets=lora.LINEAR)


def random_adapter(config: LoraConfig = EVERYWHERE) -> Any:
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: lora.init(jax.random.key(0), PARAMS, config))
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def test_a_fresh_adapter_changes_nothing():
    adapter = lora.init(jax.random.key(0), PARAMS, EVERYWHERE)
    shapes = {path: x.shape for path, x in flatten_dict(adapter, sep="/").items()}
    assert len(shapes) == 2 * (7 * DECODER.config.num_layers + 1)
    assert (shapes["attention_1/wk/a"], shapes["attention_1/wk/b"]) == ((16, 3), (3, 16))
    assert (shapes["mlp_0/down/a"], shapes["mlp_0/down/b"]) == ((24, 3), (3, 16))
    assert (shapes["unembedding/a"], shapes["unembedding/b"]) == ((16, 3), (3, 64))
    jax.tree.map(np.testing.assert_array_equal, lora.merge(PARAMS, adapter, EVERYWHERE), PARAMS)
    some = lora.init(jax.random.key(0), PARAMS, LoraConfig(targets=("wq", "up")))
    assert {path.split("/")[1] for path in flatten_dict(some, sep="/")} == {"wq", "up"}


def test_merging_adds_the_scaled_product():
    adapter = random_adapter()
    merged = flatten_dict(lora.merge(PARAMS, adapter, EVERYWHERE), sep="/")
    for path, before in flatten_dict(PARAMS, sep="/").items():
        part: Any = adapter
        for name in path.split("/"):
            part = part.get(name, {})
        change = 2.0 * np.asarray(part["a"], np.float64) @ part["b"] if part else np.zeros(1)
        change = change.T if path == "unembedding" else change
        np.testing.assert_allclose(merged[path], before + change, atol=1e-5, rtol=1e-5)


def test_half_precision_parameters_stay_so():
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), PARAMS)
    merged = lora.merge(half, random_adapter(), EVERYWHERE)
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype(jnp.bfloat16)}


def test_gradients_through_the_merge_are_those_of_the_low_rank_path():
    """Of a loss that is linear in the merged weight W + s A B: dA = s G B', dB = s A' G."""
    config = LoraConfig(rank=3, alpha=6.0, targets=("up",))
    adapter = random_adapter(config)
    tokens = np.asarray([[5, 9, 7, 4]], np.int32)
    batch = {"tokens": tokens, "positions": np.arange(4)[None], "segments": np.ones_like(tokens), "prefix": tokens < 0}
    batch |= {"targets": tokens.astype(np.float32), "weights": np.ones((1, 4), np.float32)}

    def loss(params: Any) -> jax.Array:
        return losses.language(DECODER, {"decoder": params}, batch)[0]

    found = jax.jit(jax.grad(lambda a: loss(lora.merge(PARAMS, a, config))))(adapter)
    weights = jax.jit(jax.grad(loss))(lora.merge(PARAMS, adapter, config))
    for layer in ("mlp_0", "mlp_1"):
        g, part = weights[layer]["up"], adapter[layer]["up"]
        np.testing.assert_allclose(found[layer]["up"]["a"], 2.0 * g @ part["b"].T, atol=1e-3, rtol=1e-3)
        np.testing.assert_allclose(found[layer]["up"]["b"], 2.0 * part["a"].T @ g, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("changes", "message"), [({"targets": ("query",)}, "no linear layers"), ({"rank": 0}, "rank")])
def test_settings_that_are_none_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**changes)


@pytest.mark.parametrize("targets", [("wq", "wv"), lora.LINEAR])
def test_an_adapter_comes_back_bit_by_bit(targets: tuple[str, ...], tmp_path: Path):
    config = LoraConfig(4, 8.0, targets)
    adapter = random_adapter(config)
    adapters.save(config, adapter, tmp_path / "made", MODEL)
    again, found = adapters.load(tmp_path / "made", MODEL)
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, found, adapter)
    raw = json.loads((tmp_path / "made" / adapters.SETTINGS).read_text())
    assert "q_proj" in raw["target_modules"]
    with pytest.raises(InputError, match="something already"):
        adapters.save(config, adapter, tmp_path / "made", MODEL)


def test_an_adapter_of_one_layer_names_that_layer(tmp_path: Path):
    adapter = {"attention_1": random_adapter()["attention_1"]}
    adapters.save(EVERYWHERE, adapter, tmp_path / "made", MODEL)
    raw = json.loads((tmp_path / "made" / adapters.SETTINGS).read_text())
    assert raw["target_modules"] == [f"model.layers.1.self_attn.{x}_proj" for x in "koqv"]
    config, found = adapters.load(tmp_path / "made", MODEL)
    assert (config.targets, list(found)) == (("wq", "wk", "wv", "wo"), ["attention_1"])
    with pytest.raises(ValueError, match="no linear layers"):
        adapters.save(EVERYWHERE, {"attention_7": adapter["attention_1"]}, tmp_path / "other", MODEL)


def test_all_that_is_wrong_with_an_adapter_is_listed_at_once(tmp_path: Path):
    config = LoraConfig(4, 8.0, ("wq", "wv"))
    adapters.save(config, random_adapter(config), tmp_path, MODEL)
    names = "base_model.model.model.layers.{}.self_attn.{}_proj.lora_{}.weight"
    found = load_file(tmp_path / adapters.WEIGHTS)
    del found[names.format(0, "q", "B")]
    found[names.format(1, "v", "A")] = np.zeros((2, 16), np.float32)
    found["base_model.model.model.norm.weight"] = np.zeros(16, np.float32)
    save_file(found, tmp_path / adapters.WEIGHTS)
    raw = json.loads((tmp_path / adapters.SETTINGS).read_text()) | {"use_dora": True, "alpha_pattern": {"q_proj": 2}}
    (tmp_path / adapters.SETTINGS).write_text(json.dumps(raw))
    with pytest.raises(InputError) as error:
        adapters.load(tmp_path, MODEL)
    for line in (
        "use_dora is True; expected False",
        "alpha_pattern is {'q_proj': 2}; expected {}",
        f"missing tensor {names.format(0, 'q', 'B')} [32, 4]",
        f"{names.format(1, 'v', 'A')} has shape [2, 16], expected [4, 16]",
        "unexpected tensor base_model.model.model.norm.weight [16]",
    ):
        assert line in str(error.value)


def test_an_adapter_of_a_shallower_model_is_refused(tmp_path: Path):
    """Its tensors all have a place; what tells is that its settings name layers that it does not have."""
    config = LoraConfig(4, 8.0, ("wq",))
    shallow = CausalLM(Decoder(dataclasses.replace(DECODER.config, num_layers=1)))
    adapters.save(config, {"attention_0": random_adapter(config)["attention_0"]}, tmp_path, shallow)
    missing = r"missing tensor base_model\.model\.model\.layers\.1\.self_attn\.q_proj\.lora_A\.weight \[4, 16\]"
    with pytest.raises(InputError, match=missing):
        adapters.describe(tmp_path, MODEL)
    raw = json.loads((tmp_path / adapters.SETTINGS).read_text()) | {"layers_to_transform": [0]}
    (tmp_path / adapters.SETTINGS).write_text(json.dumps(raw))
    assert adapters.describe(tmp_path, MODEL) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": None}, "r is None"),
        ({"peft_type": "IA3"}, "is IA3"),
        ({"alora_invocation_tokens": [5, 9]}, r"alora_invocation_tokens is \[5, 9\]"),  # adapts only behind these
        ({"kasa_config": {"beta": 0.1}}, "kasa_config is"),  # changes the layers themselves
    ],
)
def test_adapters_of_other_kinds_are_refused(change: dict[str, Any], message: str, tmp_path: Path):
    config = LoraConfig(4, 8.0, ("wq",))
    adapters.save(config, random_adapter(config), tmp_path, MODEL)
    raw = json.loads((tmp_path / adapters.SETTINGS).read_text()) | change
    (tmp_path / adapters.SETTINGS).write_text(json.dumps(raw))
    with pytest.raises(InputError, match=message):
        adapters.load(tmp_path, MODEL)


def test_rank_stabilised_adapters_keep_their_scale(tmp_path: Path):
    config = LoraConfig(4, 8.0, ("wq",))
    adapters.save(config, random_adapter(config), tmp_path, MODEL)
    raw = json.loads((tmp_path / adapters.SETTINGS).read_text()) | {"use_rslora": True}
    (tmp_path / adapters.SETTINGS).write_text(json.dumps(raw))
    assert adapters.load(tmp_path, MODEL)[0].scale == 8.0 / 4**0.5


def test_the_page_says_how_an_adapter_is_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = Path(__file__).parents[2] / "docs" / "base_model.md"
    (block,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    huggingface.save(MODEL, PARAMS, "FOLDER")
    Path("FOLDER/tokenizer_config.json").write_text("{}")
    config = LoraConfig(4, 8.0, ("wq", "down"))
    adapter = random_adapter(config)
    adapters.save(config, adapter, "ADAPTER", MODEL)
    exec(compile(block, page.name, "exec"), {})
    again, found = huggingface.load("MERGED")
    assert again == MODEL
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(near, found, lora.merge(PARAMS, adapter, config))
    assert Path("MERGED/tokenizer_config.json").is_file()


def test_nans_and_pickles_are_refused(tmp_path: Path):
    config = LoraConfig(4, 8.0, ("wq",))
    adapters.save(config, random_adapter(config), tmp_path, MODEL)
    found = load_file(tmp_path / adapters.WEIGHTS)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    found[name][0, 0] = np.nan
    save_file(found, tmp_path / adapters.WEIGHTS)
    with pytest.raises(InputError, match=f"{name} has NaNs"):
        adapters.load(tmp_path, MODEL)
    (tmp_path / adapters.WEIGHTS).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match="from peft import AutoPeftModelForCausalLM as M"):
        adapters.load(tmp_path, MODEL)


def test_a_tied_model_has_no_unembedding_to_adapt():
    tied = tiny.decoder_config(tied_embedding=True)
    shapes = jax.eval_shape(lambda key: decoder.init(Decoder(tied), key), jax.random.key(0))
    assert "unembedding" not in lora.init(jax.random.key(0), shapes, EVERYWHERE)
