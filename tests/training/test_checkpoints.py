"""Models come back as they were written, and damaged ones are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.models import layout, tensors
from glore_jax.parallel import placement
from glore_jax.training import checkpoints

CONFIG = {"vocab_size": tiny.VOCAB, "d_model": 16}


def test_a_model_comes_back_as_it_was(tmp_path: Path):
    _, params = tiny.random_decoder()
    path = tmp_path / "model.safetensors"
    checkpoints.save_model(path, {"decoder": params}, CONFIG)
    found, config = checkpoints.load_model(path)
    assert config == CONFIG
    assert jax.tree.structure(found) == jax.tree.structure({"decoder": params})
    jax.tree.map(np.testing.assert_array_equal, found, {"decoder": params})
    first = path.read_bytes()
    checkpoints.save_model(path, {"decoder": params}, CONFIG)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("preset", ["replicated", "fsdp", "tensor"])
def test_a_model_comes_back_in_parts(tmp_path: Path, preset: str, monkeypatch: pytest.MonkeyPatch):
    """Each device's part of each parameter is read by itself."""
    model, params = tiny.random_decoder()
    tree = {"decoder": params, "value_head": {"kernel": np.ones(16, np.float32), "bias": np.float32(2.0)}}
    checkpoints.save_model(tmp_path / "model.safetensors", tree, CONFIG)
    sizes = {"data": 0, "fsdp": 0, "tensor": 0, "sequence": 0}
    place = placement.make({"preset": preset, "sampling": "", "rules": ()} | sizes)
    read: list[int] = []
    plain = tensors.read

    def counted(*args: Any, **named: Any) -> Any:
        found = plain(*args, **named)
        read.append(found[0].size)
        return found

    monkeypatch.setattr(tensors, "read", counted)
    lay = lambda config, shapes: layout.shardings(model, shapes, place)  # noqa: E731
    found, config = checkpoints.load_parts(tmp_path / "model.safetensors", lay)
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, found, tree)
    largest = max(x.size for x in jax.tree.leaves(tree))
    assert max(read) == (largest if preset == "replicated" else largest // 2)
    gate = found["decoder"]["mlp_0"]["gate"]  # [16, 24]
    shape = {"replicated": (16, 24), "fsdp": (8, 24), "tensor": (16, 12)}[preset]
    assert [shard.data.shape for shard in gate.addressable_shards] == [shape] * 2


def test_a_model_at_half_precision_comes_back_rounded(tmp_path: Path):
    _, params = tiny.random_decoder()
    path = tmp_path / "model.safetensors"
    checkpoints.save_model(path, params, CONFIG, "bfloat16")
    found, _ = checkpoints.load_model(path)
    rounded = jax.tree.map(lambda x: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32), params)
    jax.tree.map(np.testing.assert_array_equal, found, rounded)
    assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "foreign", "other safetensors"])
def test_a_damaged_model_is_named(tmp_path: Path, how: str):
    path = tmp_path / "orm" / "model.safetensors"
    _, params = tiny.random_decoder()
    checkpoints.save_model(path, params, CONFIG)
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "other safetensors":
        from safetensors.numpy import save_file

        save_file({"weight": np.zeros(3)}, path)
    else:
        path.write_bytes({"empty": b"", "truncated": data[:-10], "foreign": b"PAR1" + bytes(100)}[how])
    with pytest.raises(
        InputError, match=r"model of glore_jax or cut short .*rebuild it with `glore run --from="
    ) as error:
        checkpoints.load_model(path)
    assert str(path) in str(error.value)
