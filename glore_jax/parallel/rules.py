"""One table from logical axis names to mesh axes; models and steps name neither devices nor mesh axes."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# First match wins; None keeps an axis whole on every device.
RULES: tuple[tuple[str, str | None], ...] = (
    ("batch", "data"),
    ("vocab", None),
    ("embed", None),
    ("heads", None),
    ("kv_heads", None),
    ("mlp", None),
    ("norm", None),
)


def of_params(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of parameters that carry logical axis names."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)


def of_batch(mesh: Mesh) -> NamedSharding:
    """Rows over the data axis."""
    return NamedSharding(mesh, P(dict(RULES)["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts host arrays [B, ...] on the devices, rows split over the data axis."""
    return jax.device_put(batch, of_batch(mesh))
