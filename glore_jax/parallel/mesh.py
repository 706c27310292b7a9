"""The mesh of devices that a run uses."""

from __future__ import annotations

import jax
from jax.sharding import AxisType, Mesh


def make() -> Mesh:
    """All devices on one `data` axis."""
    return jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(AxisType.Auto,))
