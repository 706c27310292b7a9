"""Models and checkpoints come back as they were written, and damaged ones are named."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.errors import InputError
from glore_jax.parallel import mesh as meshes
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


def test_the_newest_state_comes_back_with_its_curve_and_placement(tmp_path: Path):
    mesh = meshes.make()
    rows = NamedSharding(mesh, P("data"))
    state = {"step": jnp.int32(0), "w": jax.device_put(jnp.arange(4.0), rows)}
    progress = checkpoints.Progress(tmp_path / "run")
    assert progress.restore(state) == (state, [])
    for step in (1, 2, 5):
        curve = [{"step": step, "loss": 1 / 3}]
        progress.save(step, {"step": jnp.int32(step), "w": state["w"] + step}, curve)
    progress.close()
    found, curve = checkpoints.Progress(tmp_path / "run").restore(state)
    assert int(found["step"]) == 5
    np.testing.assert_array_equal(found["w"], [5, 6, 7, 8])
    assert found["w"].sharding == rows
    assert curve == [{"step": 5, "loss": 1 / 3}]  # to the last bit
    assert len([p for p in (tmp_path / "run").iterdir() if p.name.isdigit()]) == 1  # only the newest is kept
