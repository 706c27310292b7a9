"""How many devices each axis of the mesh has."""

from __future__ import annotations

import math

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.errors import InputError
from glore_jax.parallel import mesh as meshes


def test_the_mesh_holds_every_device():
    mesh = meshes.make()
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 1, "sequence": 1}
    assert mesh.size == jax.device_count() == 2
    assert meshes.make({"tensor": 2}).shape["tensor"] == 2


@pytest.mark.parametrize(
    ("asked", "rest", "found"),
    [
        ({}, "data", (8, 1, 1, 1)),
        ({}, "fsdp", (1, 8, 1, 1)),
        ({"tensor": 2}, "fsdp", (1, 4, 2, 1)),
        ({"fsdp": 2}, "fsdp", (4, 2, 1, 1)),
        ({"data": 2}, "tensor", (2, 1, 4, 1)),
        ({"data": 2, "sequence": 2}, "fsdp", (2, 2, 1, 2)),
        ({"data": 1, "fsdp": 1, "tensor": 8, "sequence": 1}, "tensor", (1, 1, 8, 1)),
    ],
)
def test_what_is_not_said_is_left_to_one_axis(asked: dict[str, int], rest: str, found: tuple[int, ...]):
    assert meshes.sizes(8, asked, rest) == found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tensor": 3}, r"^sharding\.tensor=3: 3 devices, and there are 8; choose sizes whose product is 8"),
        ({"tensor": 16}, r"^sharding\.tensor=16: 16 devices, and there are 8"),
        ({"data": 2, "fsdp": 2}, r"^sharding\.data=2, sharding\.fsdp=2: 4 devices, and there are 8"),
        ({"fsdp": -1}, r"^sharding\.fsdp=-1: a number of devices, or 0 "),
    ],
)
def test_sizes_that_do_not_come_to_the_devices_are_refused(asked: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        meshes.sizes(8, asked, "fsdp")


@given(st.integers(1, 64), st.lists(st.integers(0, 4), min_size=4, max_size=4), st.sampled_from(meshes.AXES))
def test_every_device_is_on_the_mesh_once(devices: int, asked: list[int], rest: str):
    said = dict(zip(meshes.AXES, asked, strict=True))
    try:
        found = meshes.sizes(devices, said, rest)
    except InputError:
        taken = math.prod(size for size in asked if size)
        assert devices % taken or (taken < devices and said[rest] and said["data"])
    else:
        assert math.prod(found) == devices
        assert all(size in (0, got) for size, got in zip(asked, found, strict=True))
