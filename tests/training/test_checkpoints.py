"""Models come back as they were written, and damaged ones are named."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.errors import InputError
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
