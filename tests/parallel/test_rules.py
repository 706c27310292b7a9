"""Where arrays lie: by the one table from logical axis names to the mesh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from glore_jax.errors import InputError
from glore_jax.models import decoder
from glore_jax.models.visibility import Visibility
from glore_jax.parallel import mesh as meshes
from glore_jax.parallel import rules


def test_the_mesh_holds_every_device():
    mesh = meshes.make()
    assert mesh.axis_names == ("data",)
    assert mesh.size == jax.device_count() == 2


def test_rows_are_split_and_come_back_whole():
    mesh = meshes.make()
    batch = {"tokens": np.arange(8).reshape(4, 2), "length": np.arange(4)}
    placed = rules.shard_batch(batch, mesh)
    for name, array in placed.items():
        assert [shard.data.shape[0] for shard in array.addressable_shards] == [2, 2]
        np.testing.assert_array_equal(array, batch[name])
    everywhere = jax.device_put(jnp.arange(3), rules.replicated(mesh))
    assert [shard.data.shape for shard in everywhere.addressable_shards] == [(3,), (3,)]


def test_every_axis_name_of_the_model_has_a_rule():
    model = decoder.Decoder(tiny.decoder_config())
    tokens = jnp.zeros((1, 4), jnp.int32)
    boxed = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens, Visibility(tokens))["params"]
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: hasattr(x, "names"))
    assert {name for box in boxes for name in box.names} <= set(dict(rules.RULES))
    assert set(dict(rules.RULES)) == set(dict(rules.TENSOR_RULES))
    mesh = meshes.make()
    shardings = jax.tree.leaves(rules.of_params(boxed, mesh))
    assert len(shardings) == len(boxes)
    assert all(s.mesh == mesh and s.is_fully_replicated for s in shardings)  # data parallel: parameters stay whole


def test_a_model_split_by_tensor_computes_the_same():
    model, params = tiny.random_decoder()
    tokens = jnp.arange(12, dtype=jnp.int32).reshape(2, 6)
    boxed = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens, jnp.ones((2, 6, 6), bool))["params"]
    mesh = jax.make_mesh((1, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    split = jax.device_put(params, rules.of_params(boxed, mesh, rules.TENSOR_RULES))
    for name, shape in {"wq": (16, 16), "wk": (16, 8), "wv": (16, 8), "wo": (16, 16)}.items():
        assert split["attention_0"][name].addressable_shards[0].data.shape == shape, name
    apply = jax.jit(decoder.CausalLM(model).apply)
    np.testing.assert_allclose(
        apply({"params": split}, tokens), apply({"params": params}, tokens), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("rows", [2, 4, 128])
def test_rows_that_divide_pass(rows: int):
    rules.check_rows("sampling.slots", rows, meshes.make())
    assert rules.of_batch(meshes.make()).spec == P("data")


@pytest.mark.parametrize(("rows", "advice"), [(3, 2), (1, 2), (0, 2), (-4, 2), (7, 6)])
def test_rows_that_do_not_divide_are_refused_with_a_number_that_does(rows: int, advice: int):
    with pytest.raises(InputError, match=rf"^a\.rows={rows} .* the 2 devices; .* e\.g\. a\.rows={advice}, or"):
        rules.check_rows("a.rows", rows, meshes.make())
