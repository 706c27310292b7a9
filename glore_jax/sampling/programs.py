"""The sampler's programs before there are weights: what `work` calls, lowered for shapes alone."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout

from glore_jax.models.decoder import Decoder
from glore_jax.parallel import programs
from glore_jax.parallel.placement import Placement
from glore_jax.sampling import decode, kv_cache, precision


def params(model: Decoder, shapes: Any, settings: Any, place: Placement) -> Any:
    """The parameters as `Engine` keeps them; `shapes` as they were read."""
    kept = jax.eval_shape(lambda tree: precision.kept(tree, settings), shapes)
    return programs.shapes(kept, precision.shardings(model, kept, place))


def bare_slots(model: Decoder, shapes: decode.Shapes) -> decode.Slots:
    return jax.eval_shape(lambda: decode.empty(model.config, shapes))


def slots_at(model: Decoder, shapes: decode.Shapes, place: Placement) -> decode.Slots:
    return decode.shardings(bare_slots(model, shapes), place)


def slots(model: Decoder, shapes: decode.Shapes, place: Placement) -> decode.Slots:
    return programs.shapes(bare_slots(model, shapes), slots_at(model, shapes, place))


def prefilled(model: Decoder, shapes: decode.Shapes, place: Placement) -> Any:
    """The sources that were read last, of which any group may take one."""
    found = jax.eval_shape(lambda: kv_cache.zeros(model.config, shapes.sources, shapes.prefix_columns, shapes.cache))
    return programs.shapes(found, place.at(None, "kv_heads"))


def prefill(model: Decoder, shapes: decode.Shapes, params: Any, place: Placement) -> jax.stages.Lowered:
    rows = (shapes.sources, shapes.prefix_columns), (shapes.sources,), (shapes.sources,)
    batch = [jax.ShapeDtypeStruct(shape, jnp.int32, sharding=place.at("batch")) for shape in rows]
    return decode.prefill.lower(model, shapes.prefix_columns, shapes.cache, params, *batch)


def compiler_chooses(place: Placement) -> bool:
    """Whether decoding gains where the compiler says how keys and values lie."""
    return place.mesh.devices.flat[0].platform != "cpu"


def automatic(slots: decode.Slots, at: decode.Slots) -> decode.Slots:
    """Where slots lie, keys and values in the order that the compiler chooses.

    Args:
      slots: shapes.
      at: shardings, as `slots`.
    """
    return jax.tree.map(lambda x, at: Format(Layout.AUTO, at) if x.ndim > 2 else at, slots, at)


def decode_chunk(model: Decoder, shapes: decode.Shapes, params: Any, place: Placement) -> jax.stages.Lowered:
    """As `layouts.Programs` has it.

    Args:
      params: arrays, or shapes that lie somewhere.
    """
    key, held = jax.eval_shape(lambda: jax.random.key(0)), bare_slots(model, shapes)
    at = decode.shardings(held, place)
    if not compiler_chooses(place):
        laid = programs.shapes((held, key), (at, place.whole))
        return decode.decode_chunk.lower(model, shapes, params, *laid)
    at = automatic(held, at)

    def chunk(params: Any, slots: decode.Slots, key: jax.Array) -> decode.Slots:
        return inspect.unwrap(decode.decode_chunk)(model, shapes, params, slots, key)

    given = jax.tree.map(lambda x: x.sharding, params), at, place.whole
    return jax.jit(chunk, in_shardings=given, out_shardings=at, donate_argnums=1).lower(params, held, key)
