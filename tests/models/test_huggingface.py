"""Hugging Face folders: they come back bit by bit, lie where they are told to, and say what is wrong with them."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import checkpoints
import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file

from glore_jax.errors import InputError
from glore_jax.models import decoder, families, huggingface, tensors
from glore_jax.models.decoder import CausalLM, DecoderConfig
from glore_jax.models.visibility import Visibility
from glore_jax.parallel import placement

BFLOAT16 = np.dtype(jnp.bfloat16)


@functools.partial(jax.jit, static_argnums=0)
def call(model: Any, params: Any, tokens_BxT: Any) -> jax.Array:
    return model.apply({"params": params}, tokens_BxT)


def refusal(folder: Path, **arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        huggingface.load(folder, **arguments)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_tensors_come_back_bit_by_bit(family: str, tmp_path: Path):
    given = checkpoints.write(tmp_path / "given", checkpoints.config(family))
    model, params = huggingface.load(given)
    huggingface.save(model, params, tmp_path / "made")
    assert checkpoints.bits(tmp_path / "made") == checkpoints.bits(given)
    again, _ = huggingface.load(tmp_path / "made")
    assert again == model
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("given", "made")] == []


@pytest.mark.parametrize("dtype", [BFLOAT16, np.float16])
def test_half_precision_stays_or_is_widened(dtype: Any, tmp_path: Path):
    raw = checkpoints.config("qwen2")
    given = checkpoints.write(tmp_path / "given", raw, checkpoints.weights(raw, dtype=dtype))
    model, params = huggingface.load(given)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(dtype)}
    assert model.decoder.config.dtype == np.dtype(dtype).name
    huggingface.save(model, params, tmp_path / "made")
    assert checkpoints.bits(tmp_path / "made") == checkpoints.bits(given)
    wide, widened = huggingface.load(given, dtype="float32")
    assert wide.decoder.config.dtype == "float32"
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype(jnp.float32), b), params, widened)
    if dtype == BFLOAT16:
        tokens = jnp.asarray([[5, 9, 9, 7]])
        logits = call(model, params, tokens)
        assert logits.dtype == jnp.float32
        np.testing.assert_allclose(logits, call(wide, widened, tokens), atol=0.3)


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, BFLOAT16])
def test_a_type_may_be_said_as_numpy_and_jax_do(dtype: Any, tmp_path: Path):
    model, params = huggingface.load(checkpoints.write(tmp_path, checkpoints.config("qwen2")), dtype=dtype)
    assert model.decoder.config.dtype == "bfloat16"  # text: a configuration is written as JSON
    assert {x.dtype for x in jax.tree.leaves(params)} == {BFLOAT16}


@pytest.mark.parametrize("dtype", ["bf16", "int8", np.float64])
def test_a_type_that_no_model_has_is_refused(dtype: Any, tmp_path: Path):
    folder = checkpoints.write(tmp_path, checkpoints.config("qwen2"))
    with pytest.raises(ValueError, match=r"dtype='(bf16|int8|float64)': expected one of float32, float16, bfloat16"):
        huggingface.load(folder, dtype=dtype)


def test_shards_are_written_and_read(tmp_path: Path):
    model, params = huggingface.load(checkpoints.write(tmp_path / "given", checkpoints.config("llama3")))
    huggingface.save(model, params, tmp_path / "made", shard_bytes=20_000)
    names = sorted(p.name for p in (tmp_path / "made").glob("*.safetensors"))
    assert len(names) > 2 and names[0] == f"model-00001-of-{len(names):05}.safetensors"
    assert all(p.stat().st_size < 22_000 for p in (tmp_path / "made").glob("*.safetensors"))
    assert checkpoints.bits(tmp_path / "made") == checkpoints.bits(tmp_path / "given")
    again, found = huggingface.load(tmp_path / "made")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize("where", ["placement", "fsdp", "rows", "columns"])
def test_parameters_lie_where_they_shall(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = checkpoints.write(tmp_path, checkpoints.config("gemma2"))
    _, whole = huggingface.load(folder)
    assert all(x.sharding.device_set == {jax.devices()[0]} for x in jax.tree.leaves(whole))
    monkeypatch.setattr(tensors, "_BLOCK", 1000)  # several reads a tensor
    largest: list[int] = []
    plain = tensors.read

    def counted(*how: Any) -> tuple[np.ndarray, bool]:
        found = plain(*how)
        largest.append(found[0].size)
        return found

    monkeypatch.setattr(tensors, "read", counted)
    sizes = {"sampling": "", "rules": (), "data": 0, "fsdp": 0, "tensor": 0, "sequence": 0}
    place = placement.make(sizes | {"preset": "fsdp" if where == "fsdp" else "replicated"})
    mesh = place.mesh
    columns = jax.tree.map(lambda x: NamedSharding(mesh, P(*[None] * (x.ndim - 1), "data")), whole)
    sharding = {"placement": place, "fsdp": place, "rows": NamedSharding(mesh, P("data")), "columns": columns}[where]
    _, params = huggingface.load(folder, sharding=sharding)
    jax.tree.map(np.testing.assert_array_equal, params, whole)
    for x in jax.tree.leaves(params):
        assert x.sharding.mesh == mesh
        # The first preset splits none, fsdp all but norms.
        assert x.sharding.is_fully_replicated == (where == "placement" or (where == "fsdp" and x.ndim == 1))
    # A device's part of a tensor is read by itself.
    assert max(largest) == max(x.size for x in jax.tree.leaves(whole)) // (1 if where == "placement" else 2)


def test_all_that_is_wrong_is_listed_at_once(tmp_path: Path):
    raw = checkpoints.config("llama3")
    found = checkpoints.weights(raw)
    del found["model.layers.1.mlp.up_proj.weight"], found["model.norm.weight"]
    found["model.layers.0.self_attn.q_proj.weight"] = np.zeros((32, 8), np.float32)
    found |= {"model.layers.0.self_attn.q_proj.bias": np.zeros(32, np.float32), "adapter": np.zeros(2, np.float32)}
    found["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(4, np.float32)  # old Llama files have it
    message = refusal(checkpoints.write(tmp_path, raw, found))
    for line in (
        "missing tensor model.layers.1.mlp.up_proj.weight [48, 32]",
        "missing tensor model.norm.weight [32]",
        "model.layers.0.self_attn.q_proj.weight has shape [32, 8], expected [32, 32]",
        "unexpected tensor model.layers.0.self_attn.q_proj.bias [32]",
        "unexpected tensor adapter [2]",
    ):
        assert line in message
    assert "inv_freq" not in message


@pytest.mark.parametrize(("rows", "size"), [(48, "smaller"), (96, "larger")])
def test_a_vocabulary_that_is_not_the_embeddings_is_refused(rows: int, size: str, tmp_path: Path):
    raw = checkpoints.config("qwen2")
    found = checkpoints.weights(raw | {"vocab_size": rows})
    message = refusal(checkpoints.write(tmp_path, raw, found))
    assert f"model.embed_tokens.weight has shape [{rows}, 32], expected [64, 32]" in message
    assert f"it is {size} than vocab_size=64 in config.json" in message


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused(tmp_path: Path):
    folder = checkpoints.write(tmp_path, checkpoints.config("qwen2"))
    vocab = {f"t{i}": i for i in range(60)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": []}))
    huggingface.load(folder)  # fewer tokens than rows: rows are often padded
    added = [{"id": 63, "content": "<a>"}, {"id": 64, "content": "<b>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": added}))
    assert "tokenizer.json has token 64, the embedding 64 rows" in refusal(folder)


def test_a_sentencepiece_model_with_more_pieces_than_the_embedding_is_refused(tmp_path: Path):
    folder = checkpoints.write(tmp_path, checkpoints.config("qwen2"))
    handmade.tokenizer().save(folder)
    last = handmade.tokenizer().vocab_size - 1
    assert f"tokenizer.model has token {last}, the embedding 64 rows" in refusal(folder)


def test_nans_are_named(tmp_path: Path):
    raw = checkpoints.config("gemma2")
    found = checkpoints.weights(raw, dtype=BFLOAT16)
    found["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    found["model.norm.weight"][0] = np.nan
    message = refusal(checkpoints.write(tmp_path, raw, found))
    assert "model.layers.1.mlp.up_proj.weight has NaNs" in message
    assert "model.norm.weight has NaNs" in message
    assert message.count("NaN") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "unknown architecture GPT2LMHeadModel; there are LlamaForCausalLM"),
        ({"architectures": []}, "unknown architecture (none)"),
        ({"hidden_size": None, "intermediate_size": "48"}, "hidden_size is None; expected a number"),
        ({"attention_bias": True}, "attention_bias is True; a Llama decoder can do False only"),
        ({"hidden_act": "relu"}, "hidden_act is relu; a Llama decoder can do silu only"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rotary positions of type yarn"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "rope_scaling lacks low_freq_factor"),
        ({"num_key_value_heads": 3}, "num_heads=4 must be a multiple of num_kv_heads=3"),
        ({"rope_parameters": {"rope_theta": 1.0, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    ],
)
def test_settings_that_the_decoder_cannot_do_are_named(changes: dict, message: str, tmp_path: Path):
    folder = checkpoints.write(tmp_path, checkpoints.config("llama3"))
    (folder / "config.json").write_text(json.dumps(checkpoints.config("llama3") | changes))
    assert message in refusal(folder)


def test_layer_types_that_do_not_fit_are_named(tmp_path: Path):
    folder = checkpoints.write(tmp_path, checkpoints.config("gemma2") | {"layer_types": ["chunked_attention"] * 3})
    assert "layer_types ['chunked_attention'" in refusal(folder)


@pytest.mark.parametrize(
    "how", ["no folder", "no weights", "pickled", "no config", "config not json", "cut", "garbage"]
)
def test_folders_that_are_no_model_are_refused(how: str, tmp_path: Path):
    folder = checkpoints.write(tmp_path / "m", checkpoints.config("llama3"))
    weights = folder / "model.safetensors"
    expected = {
        "no folder": "no such folder", "no weights": "neither model.safetensors nor", "no config": "cannot be read",
        "pickled": r"only pickled weights \(pytorch_model.bin\).*save_pretrained", "config not json": "as JSON",
        "cut": "lie outside of the file", "garbage": "not a whole safetensors file",
    }[how]  # fmt: skip
    if how == "no folder":
        folder = tmp_path / "elsewhere"
    elif how in ("no weights", "pickled"):
        weights.rename(folder / "pytorch_model.bin") if how == "pickled" else weights.unlink()
    elif how in ("cut", "garbage"):
        weights.write_bytes(weights.read_bytes()[:-9] if how == "cut" else b"\xff" * 100)
    else:
        (folder / "config.json").unlink() if how == "no config" else (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=expected):
        huggingface.load(folder)


def test_an_index_names_files_beside_it_only(tmp_path: Path):
    model, params = huggingface.load(checkpoints.write(tmp_path / "given", checkpoints.config("llama3")))
    huggingface.save(model, params, tmp_path / "made", shard_bytes=40_000)
    index = tmp_path / "made" / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    name = "model.norm.weight"
    for value, message in (("../given/model.safetensors", "no `weight_map`"), ("gone.safetensors", "are missing")):
        listed["weight_map"][name] = value
        index.write_text(json.dumps(listed))
        assert message in refusal(tmp_path / "made")
    first = sorted(p.name for p in (tmp_path / "made").glob("*.safetensors"))[0]
    listed["weight_map"][name] = first
    index.write_text(json.dumps(listed))
    assert f"{name} are not in the files" in refusal(tmp_path / "made")


def test_a_type_that_is_no_float_is_refused(tmp_path: Path):
    raw = checkpoints.config("llama3")
    found: dict[str, np.ndarray] = checkpoints.weights(raw)
    found["model.norm.weight"] = np.ones(32, np.int64)
    assert "model.norm.weight is of type I64" in refusal(checkpoints.write(tmp_path, raw, found))


def test_code_in_a_folder_is_not_run(tmp_path: Path):
    raw = checkpoints.config("llama3") | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    folder = checkpoints.write(tmp_path / "m", raw)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    huggingface.load(folder)
    assert not (tmp_path / "ran").exists()


def test_the_tokenizer_goes_along(tmp_path: Path):
    given = checkpoints.write(tmp_path / "given", checkpoints.config("qwen2") | {"eos_token_id": [7, 9]})
    for name in ("tokenizer.json", "tokenizer_config.json", "merges.txt", "generation_config.json", "README.md"):
        (given / name).write_text("{}")
    model, params = huggingface.load(given)
    huggingface.save(model, params, tmp_path / "made", tokenizer=given)
    assert {p.name for p in (tmp_path / "made").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "merges.txt",
        "generation_config.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "made" / "config.json").read_text())["eos_token_id"] == [7, 9]
    (tmp_path / "spm").write_bytes(b"model")
    huggingface.save(model, params, tmp_path / "other", tokenizer=tmp_path / "spm")
    assert (tmp_path / "other" / "tokenizer.model").read_bytes() == b"model"
    with pytest.raises(InputError, match="no tokenizer files there"):
        huggingface.save(model, params, tmp_path / "third", tokenizer=tmp_path / "made" / "nothing")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, params = huggingface.load(checkpoints.write(tmp_path / "given", checkpoints.config("llama3")))
    with pytest.raises(InputError, match="there is something already"):
        huggingface.save(model, params, tmp_path / "given")
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / "left behind").touch()
    real = os.fsync

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        huggingface.save(model, params, tmp_path / "made")
    assert [p.name for p in tmp_path.iterdir()] == ["given"]
    monkeypatch.setattr(os, "fsync", real)
    (tmp_path / "made").mkdir()  # an empty folder is fine
    huggingface.save(model, params, tmp_path / "made")
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["config.json", "model.safetensors"]


def test_decoders_that_transformers_does_not_have_are_refused():
    def config(**changes: Any) -> DecoderConfig:
        return tiny.decoder_config(**changes)

    assert families.family_of(config()).stem == "Llama"
    assert families.family_of(config(layer_windows=(4, 4))).stem == "Mistral"
    with pytest.raises(InputError, match="prefix_lm=True"):
        families.family_of(config(prefix_lm=True))
    for odd in ({"layer_windows": (4, 2)}, {"layer_windows": (4, 0)}, {"qk_norm": True, "qkv_bias": True}):
        with pytest.raises(InputError, match=r"has all of .*; families are Llama, Mistral"):
            families.family_of(config(**odd))
    with pytest.raises(InputError, match="no Gemma3ForTokenClassification"):
        traits = {"post_norms": True, "unit_offset_norm": True, "scale_embedding": True, "activation": "gelu_tanh"}
        families.write(config(**traits, qk_norm=True, local_rope_theta=1e4), families.VALUE, "float32")


def test_a_small_model_of_the_project_leaves_as_a_llama(tmp_path: Path):
    model, params = tiny.random_decoder()
    huggingface.save(CausalLM(model), params, tmp_path / "made")
    again, found = huggingface.load(tmp_path / "made")
    assert again == CausalLM(model)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert set(load_file(tmp_path / "made" / "model.safetensors")) == set(tensors.find(tmp_path / "made"))
    tokens = jnp.asarray([[5, 6, 7]])
    positions, visible = jnp.arange(3)[None], Visibility(jnp.ones_like(tokens))

    @jax.jit
    def expected(params: Any) -> jax.Array:
        return decoder.logits(params, model.apply({"params": params}, tokens, positions, visible)[0])

    np.testing.assert_array_equal(call(again, found, tokens), expected(params))


def test_parameters_of_another_model_are_not_written(tmp_path: Path):
    model, params = tiny.random_decoder()
    with pytest.raises(ValueError, match=r"lacking: \['final_norm/scale'\]"):
        huggingface.save(CausalLM(model), {k: v for k, v in params.items() if k != "final_norm"}, tmp_path / "made")
