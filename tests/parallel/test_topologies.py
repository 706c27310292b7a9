"""Names of slices, and what libtpu says to them where it is installed."""

from __future__ import annotations

import pytest

from glore_jax.errors import InputError
from glore_jax.parallel import mesh, topologies
from glore_jax.parallel.topologies import Slice


@pytest.mark.parametrize(
    ("text", "slice_", "chips", "name"),
    [
        ("v5e:16x16", Slice("v5e", "16x16"), 256, "v5e-256"),
        ("v5e-16", Slice("v5e", "4x4"), 16, "v5e-16"),
        ("v5p-64", Slice("v5p", "2x4x4"), 32, "v5p-64"),
        ("v6e-64", Slice("v6e", "8x8"), 64, "v6e-64"),
        ("v5p:8x16x16", Slice("v5p", "8x16x16"), 2048, "v5p-4096"),  # not listed
    ],
)
def test_a_slice_has_two_names(text: str, slice_: Slice, chips: int, name: str):
    assert topologies.parse(text) == slice_
    assert (slice_.chips, slice_.name) == (chips, name)
    assert topologies.parse(slice_.topology) == slice_


@pytest.mark.parametrize("text", ["", "v5e", "v5e-17", "v5e:", "v5e:16", "v5e:0x4", "v4-8", "v5p:2x2x1x1", "5e:2x2"])
def test_other_names_are_refused_with_those_that_there_are(text: str):
    with pytest.raises(InputError, match=r"there are|did you mean"):
        topologies.parse(text)


def test_larger_slices_are_of_the_same_chips():
    assert [s.name for s in topologies.larger(Slice("v5e", "8x8"))] == ["v5e-128", "v5e-256"]
    assert topologies.larger(Slice("v5e", "16x16")) == []


def test_the_compiler_knows_the_listed_slices():
    pytest.importorskip("libtpu", reason="the extra `tpu-compile` is not installed")
    for kind, chip in topologies.CHIPS.items():
        for shape in (chip.shapes[0], chip.shapes[-1]):
            assert len(topologies.devices(Slice(kind, shape))) == Slice(kind, shape).chips
    assert len(topologies.devices(Slice("v5e", "1x1"))) == 1
    with pytest.raises(InputError, match="libtpu has no such slice"):
        topologies.devices(Slice("v5e", "3x5"))


def test_an_axis_of_the_mesh_may_have_a_part_of_one_of_the_torus():
    """Eight chips of 4 x 4 x 4."""
    pytest.importorskip("libtpu", reason="the extra `tpu-compile` is not installed")
    made = mesh.make({"tensor": 8}, "fsdp", topologies.devices(topologies.parse("v5p-128")))
    assert dict(made.shape) == {"data": 1, "fsdp": 8, "tensor": 8, "sequence": 1}
    assert len({device.id for device in made.devices.flat}) == 64
