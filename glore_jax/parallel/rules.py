"""Tables from logical axis names to mesh axes; models and steps name neither devices nor mesh axes."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from flax.linen import spmd
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.errors import InputError

Table = tuple[tuple[str, str | None], ...]

# First match wins; None keeps an axis whole on every device.
RULES: Table = (
    ("batch", "data"),
    ("vocab", None),
    ("embed", None),
    ("heads", None),
    ("kv_heads", None),
    ("mlp", None),
    ("norm", None),
)
# For models that one device cannot hold: each device has some of the heads, hidden units and words, of every layer.
TENSOR_RULES: Table = (
    ("batch", "data"),
    ("vocab", "tensor"),
    ("embed", None),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("norm", None),
)


def of_params(boxed: Any, mesh: Mesh, table: Table = RULES) -> Any:
    """Shardings of a tree of parameters that carry logical axis names."""
    return spmd.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, table)


def of_batch(mesh: Mesh) -> NamedSharding:
    """Rows over the data axis."""
    return NamedSharding(mesh, P(dict(RULES)["batch"]))


def check_rows(name: str, rows: int, mesh: Mesh) -> None:
    """InputError where a batch of so many rows cannot be split over the data axis.

    Args:
      name: the configuration key that says how many rows.
    """
    devices = mesh.shape["data"]
    if rows % devices or rows < 1:
        raise InputError(
            f"{name}={rows} does not divide by the {devices} devices; make it a multiple of {devices}, e.g. "
            f"{name}={max(devices, rows // devices * devices)}, or set `devices` to another number"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts host arrays [B, ...] on the devices, rows split over the data axis."""
    return jax.device_put(batch, of_batch(mesh))
