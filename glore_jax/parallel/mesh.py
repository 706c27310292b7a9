"""The mesh of devices that a run uses, and how many devices each of its axes has.

`data` and `fsdp` both split rows; `fsdp` can split parameters too, `tensor` what a layer computes, and `sequence` the
positions of long rows. All four axes are always there; one of a single device splits nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from glore_jax.errors import InputError

AXES = ("data", "fsdp", "tensor", "sequence")


def make(asked: Mapping[str, int] | None = None, rest: str = "data", devices: Sequence[Any] | None = None) -> Mesh:
    """All devices, on axes of the sizes that are asked for.

    Args:
      asked: sizes by axis; 0, or an axis that is left out, is not said.
      rest: the axis that takes the devices that are left, or `data` where this one's size is asked for. Other axes of
        which nothing is said have one device.
      devices: others than all that there are, those of all processes of a job.

    Raises:
      InputError: the sizes do not come to the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    shape, types = sizes(count, asked or {}, rest), (AxisType.Auto,) * len(AXES)
    try:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    except NotImplementedError:  # an axis has a part of one of the torus, as JAX does it on v5e by itself
        laid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(laid, AXES, axis_types=types)


def sizes(devices: int, asked: Mapping[str, int], rest: str = "data") -> tuple[int, ...]:
    """Devices on each of `AXES`; see `make`.

    >>> sizes(8, {"tensor": 2}, rest="fsdp")
    (1, 4, 2, 1)
    >>> sizes(8, {"fsdp": 4}, rest="fsdp")
    (2, 4, 1, 1)
    """
    said = {axis: asked.get(axis, 0) for axis in AXES}
    if low := {axis: size for axis, size in said.items() if size < 0}:
        raise InputError(f"{_listed(low)}: a number of devices, or 0 for what the others leave")
    taker = next((axis for axis in (rest, "data") if not said[axis]), None)
    fixed = {axis: size for axis, size in said.items() if size}
    taken = math.prod(fixed.values())
    left, over = divmod(devices, taken)
    if over or not left or (left > 1 and taker is None):
        raise InputError(
            f"{_listed(fixed)}: {taken} devices, and there are {devices}; "
            f"choose sizes whose product is {devices}, or 0 for one of them"
        )
    said = {axis: size or 1 for axis, size in said.items()} | ({taker: left} if taker else {})
    return tuple(said[axis] for axis in AXES)


def _listed(asked: Mapping[str, int]) -> str:
    return ", ".join(f"sharding.{axis}={size}" for axis, size in asked.items())
