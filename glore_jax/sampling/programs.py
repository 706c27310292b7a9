"""The sampler's programs before there are weights: what `work` calls, lowered for shapes alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.models.decoder import Decoder
from glore_jax.parallel import programs
from glore_jax.parallel.placement import Placement
from glore_jax.sampling import decode, kv_cache, precision


def params(model: Decoder, shapes: Any, settings: Any, place: Placement) -> Any:
    """The parameters as `Engine` keeps them; `shapes` as they were read."""
    kept = jax.eval_shape(lambda tree: precision.kept(tree, settings), shapes)
    return programs.shapes(kept, precision.shardings(model, kept, place))


def slots(model: Decoder, shapes: decode.Shapes, place: Placement) -> decode.Slots:
    held = jax.eval_shape(lambda: decode.empty(model.config, shapes))
    return programs.shapes(held, decode.shardings(held, place))


def prefilled(model: Decoder, shapes: decode.Shapes, place: Placement) -> Any:
    """The sources that were read last, of which any group may take one."""
    found = jax.eval_shape(lambda: kv_cache.zeros(model.config, shapes.sources, shapes.prefix_columns, shapes.cache))
    return programs.shapes(found, place.at(None, "kv_heads"))


def prefill(model: Decoder, shapes: decode.Shapes, params: Any, place: Placement) -> jax.stages.Lowered:
    rows = (shapes.sources, shapes.prefix_columns), (shapes.sources,), (shapes.sources,)
    batch = [jax.ShapeDtypeStruct(shape, jnp.int32, sharding=place.at("batch")) for shape in rows]
    return decode.prefill.lower(model, shapes, params, *batch)


def decode_chunk(model: Decoder, shapes: decode.Shapes, params: Any, place: Placement) -> jax.stages.Lowered:
    key = programs.shapes(jax.eval_shape(lambda: jax.random.key(0)), place.whole)
    return decode.decode_chunk.lower(model, shapes, params, slots(model, shapes, place), key)
