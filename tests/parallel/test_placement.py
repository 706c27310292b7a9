"""Where arrays lie: by a mesh and the one table from logical axis names to it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from glore_jax.errors import InputError
from glore_jax.models import decoder
from glore_jax.parallel import mesh as meshes
from glore_jax.parallel import placement, rules
from glore_jax.parallel.placement import Placement


def settings(**changes: Any) -> dict[str, Any]:
    sizes = {"data": 0, "fsdp": 0, "tensor": 0, "sequence": 0}
    return {"preset": "replicated", "sampling": "", "rules": ()} | sizes | changes


def pretended(preset: str, *sizes: int, added: tuple[str, ...] = ()) -> Placement:
    """A placement on devices that are not there: it can say where arrays would lie."""
    mesh: Any = AbstractMesh(sizes, meshes.AXES)
    return Placement(mesh, rules.table(preset, added))


def shapes(**changes: Any) -> Any:
    return decoder.shapes(decoder.Decoder(tiny.decoder_config(**changes)))


def test_rows_are_split_and_come_back_whole():
    place = placement.make()
    batch = {"tokens": np.arange(8).reshape(4, 2), "length": np.arange(4)}
    placed = place.put(batch)
    for name, array in placed.items():
        assert [shard.data.shape[0] for shard in array.addressable_shards] == [2, 2]
        np.testing.assert_array_equal(array, batch[name])
    everywhere = jax.device_put(jnp.arange(3), place.whole)
    assert [shard.data.shape for shard in everywhere.addressable_shards] == [(3,), (3,)]


def test_data_parallel_parameters_stay_whole():
    place = placement.make()
    shardings = jax.tree.leaves(place.of_params(shapes()))
    assert shardings and all(s == place.whole for s in shardings)


def test_what_each_preset_makes_of_a_matrix():
    assert pretended("replicated", 8, 1, 1, 1).at("embed", "mlp").spec == P()
    assert pretended("fsdp", 1, 8, 1, 1).at("embed", "mlp").spec == P("fsdp")
    assert pretended("tensor", 2, 1, 4, 1).at("vocab", "embed").spec == P("tensor")
    both = pretended("fsdp+tensor", 1, 4, 2, 1)
    assert both.at("heads", "embed").spec == P("tensor", "fsdp")
    assert both.at("norm").spec == P()
    assert both.at("batch", "positions").spec == P("fsdp")  # the axis data has one device
    assert pretended("fsdp", 2, 2, 1, 2).at("batch", "positions").spec == P(("data", "fsdp"), "sequence")


def test_a_model_split_by_tensor_computes_the_same():
    model, params = tiny.random_decoder()
    tokens = jnp.arange(12, dtype=jnp.int32).reshape(2, 6)
    split = jax.device_put(params, placement.make(settings(preset="tensor")).of_params(shapes()))
    for name, shape in {"wq": (16, 16), "wk": (16, 8), "wv": (16, 8), "wo": (16, 16)}.items():
        assert split["attention_0"][name].addressable_shards[0].data.shape == shape, name
    apply = jax.jit(decoder.CausalLM(model).apply)
    np.testing.assert_allclose(
        apply({"params": split}, tokens), apply({"params": params}, tokens), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            pretended("tensor", 1, 1, 5, 1),
            r"^sharding: kv_heads in attention_0/wk has 16 parts, which .* sharding\.tensor=5",
        ),
        (
            pretended("fsdp", 1, 3, 1, 1),
            r"^sharding: embed in .* has 16 parts, .* sharding\.fsdp=3; .*rules=embed=none",
        ),
        (
            pretended("fsdp", 1, 4, 1, 1, added=("mlp=fsdp",)),
            r"^sharding: (embed and mlp|mlp and embed) of one array .* both go to the mesh axis fsdp=4; .*=none",
        ),
    ],
)
def test_rules_that_cannot_be_are_refused_by_name(place: Placement, message: str):
    with pytest.raises(InputError, match=message):
        place.of_params(shapes(tied_embedding=True))


def test_no_head_is_cut():
    """A matrix of 2 key heads of 8 has 16 columns, which would divide by 4 devices."""
    units = tiny.decoder_config().units
    pretended("tensor", 1, 1, 2, 1).check_units(units)
    with pytest.raises(InputError, match=r"^sharding: kv_heads has 2 parts, which do not divide by sharding\.tensor=4"):
        pretended("tensor", 1, 1, 4, 1).check_units(units)
    pretended("tensor", 1, 1, 4, 1, added=("kv_heads=none",)).check_units(units)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tensor": 2},
            r"^sharding\.tensor=2: with sharding\.preset=replicated nothing is split over tensor, so 2 ",
        ),
        ({"preset": "fsdp+tensor"}, r"^sharding\.preset='fsdp\+tensor': say how many devices tensor takes"),
        ({"preset": "fsdp", "fsdp": 3}, r"^sharding\.fsdp=3: 3 devices, and there are 2"),
        ({"preset": "none"}, r"^sharding\.preset='none': no such preset"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        placement.make(settings(**changes))


def test_sampling_may_have_a_preset_of_its_own():
    asked = settings(preset="fsdp", sampling="replicated")
    assert placement.make(asked).at("embed").spec == P("fsdp")
    assert placement.make(asked, sampling=True).at("embed").spec == P()
    assert placement.make(asked, sampling=True).at("batch").spec == P("fsdp")
    assert placement.make(settings(preset="fsdp"), sampling=True) == placement.make(settings(preset="fsdp"))
    with pytest.raises(InputError, match=r"sharding\.tensor=2: with sharding\.sampling=replicated nothing is split"):
        placement.make(settings(preset="tensor", sampling="replicated"), sampling=True)


@pytest.mark.parametrize("rows", [2, 4, 128])
def test_rows_that_divide_pass(rows: int):
    placement.make().check_rows("sampling.slots", rows)


@pytest.mark.parametrize(("rows", "advice"), [(3, 2), (1, 2), (0, 2), (-4, 2), (7, 6)])
def test_rows_that_do_not_divide_are_refused_with_a_number_that_does(rows: int, advice: int):
    with pytest.raises(InputError, match=rf"^a\.rows={rows} .* the 2 devices .* e\.g\. a\.rows={advice}, or"):
        placement.make(settings(preset="fsdp")).check_rows("a.rows", rows)
