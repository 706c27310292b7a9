"""A loss computed by each device on its own rows, for weights that are split over the same axes as rows (fsdp).

XLA left to itself may sum whole gradients on every device before it takes a part of them. Here a device has its parts
of the weights by construction (`jax.shard_map`) and gathers those of a layer when its turn comes; the gradient of a
gather is a sum over devices of which each gets its part, so what is sent back is a reduce-scatter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from glore_jax.models import layout
from glore_jax.models.decoder import Decoder


def split(loss: Callable) -> Callable:
    """The same loss, and the same sums, however weights are split; see `training.losses`."""

    def whole(model: Decoder, params: Any, batch: Any) -> tuple[jax.Array, Any]:
        place = model.execution.place
        if place is None or not model.execution.splits_weights:
            return loss(model, params, batch)
        mine = Decoder(model.config, dataclasses.replace(model.execution, own_rows=True))

        def own(params: Any, batch: Any) -> tuple[jax.Array, Any]:
            return jax.lax.psum(loss(mine, params, batch), place.axes("batch"))

        parts = jax.tree.map(lambda at: at.spec, layout.shardings(model, params, place))
        at = parts, place.at("batch").spec
        return jax.shard_map(own, mesh=place.mesh, in_specs=at, out_specs=place.whole.spec, check_vma=False)(
            params, batch
        )

    return whole
