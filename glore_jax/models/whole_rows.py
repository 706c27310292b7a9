"""The decoder on whole rows, as training reads them: layers one by one or scanned, rematerialised, gathered in turn.

It computes what `Decoder` does. A scan over stacked layers (`models.stacking`) compiles one of them and keeps one at a
time in temporaries; when its turn comes its weights are cast, and gathered where devices have parts of them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.models import layout, stacking
from glore_jax.models.decoder import Decoder, DecoderConfig, Layers, final_norm, readers, stream
from glore_jax.models.execution import Execution
from glore_jax.models.visibility import Visibility

_POLICIES = {"products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


def read(
    model: Decoder, params: Any, tokens_BxT: jax.Array, positions_BxT: jax.Array, visible: Visibility
) -> jax.Array:
    """Final hidden states [B, T, D]; `params` with layers stacked or not."""
    e = getattr(model, "execution", None)
    if e is None or (stacking.LAYERS not in params and e.remat == "none" and not e.own_rows):
        return model.apply({"params": params}, tokens_BxT, positions_BxT, visible)[0]
    c, names = model.config, layout.names(model.config)
    reads = readers(c, e, visible)
    x = stream(c, _embed(e, params["embedding"], tokens_BxT))

    def layer(i: int, x: jax.Array, weights: Any) -> jax.Array:
        def compute(x: jax.Array, weights: Any) -> jax.Array:
            x, weights = e.in_turn(x, weights)
            weights = jax.tree.map(lambda w, n: e.gather(w, n, _dtype(c, n)), weights, _of_layer(names, i))
            window = (c.window(i),) if c.layer_windows else ()
            one = Layers(dataclasses.replace(c, num_layers=1, layer_windows=window), e)
            return one.apply({"params": weights}, x, positions_BxT, reads)[0]

        if e.remat == "none":
            return compute(x, weights)
        return jax.checkpoint(compute, policy=_POLICIES[e.remat], prevent_cse=stacking.LAYERS not in params)(x, weights)

    first = 0
    if stacking.LAYERS in params:
        p = stacking.period(c)
        first = c.num_layers // p * p

        def turn(x: jax.Array, weights: Any) -> tuple[jax.Array, None]:
            for j in range(p):
                x = layer(j, x, _of_layer(weights, j))
            return x, None

        x, _ = jax.lax.scan(turn, x, params[stacking.LAYERS])
    for i in range(first, c.num_layers):
        x = layer(i, x, _of_layer(params, i))
    return final_norm(c, params, x)


def _embed(e: Execution, table_VxD: jax.Array, tokens_BxT: jax.Array) -> jax.Array:
    """Rows of the embedding [B, T, D].

    A device that has a part of each of them looks up its parts for the tokens of all, and what is exchanged is as much
    as the tokens need, where a gathered table would be all of it.
    """
    taken = e.place.axes("embed") if e.place is not None and e.own_rows else ()
    if not taken:
        whole = e.gather(table_VxD, ("vocab", "embed"), table_VxD.dtype) if e.own_rows else e.table(table_VxD)
        return jnp.take(whole, tokens_BxT, axis=0)
    parts = jnp.take(table_VxD, jax.lax.all_gather(tokens_BxT, taken, axis=0, tiled=True), axis=0)
    return jax.lax.all_to_all(parts, taken, split_axis=0, concat_axis=2, tiled=True)


def _of_layer(tree: Any, i: int) -> dict[str, Any]:
    """What belongs to layer i, named as that of a decoder with one layer."""
    return {f"{name.removesuffix(f'_{i}')}_0": part for name, part in tree.items() if name.endswith(f"_{i}")}


def _dtype(c: DecoderConfig, names: tuple[str, ...]) -> str:
    return "float32" if tuple(names) == ("norm",) else c.dtype
