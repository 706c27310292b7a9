"""Where the parameters of a model lie: a decoder's by the names of their axes, heads and adapters whole everywhere."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from glore_jax.models import decoder, stacking
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.parallel.placement import Placement


def named(model: Decoder, params: Any) -> Any:
    """Shapes of parameters `{"decoder": ..., ...}`, those of the decoder with the names of their axes.

    Args:
      params: arrays or their shapes, layers stacked or not. What is made of such a tree by `jax.eval_shape`, as an
        optimizer's moments, keeps the names.
    """
    rest = {name: tree for name, tree in params.items() if name != "decoder"}
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), rest)
    if "decoder" not in params:
        return shapes
    return shapes | {"decoder": _decoder(model.config, stacking.LAYERS in params["decoder"])}


def names(config: DecoderConfig, stacked: bool = False) -> Any:
    """The logical names of the axes of every parameter of a decoder, whose layers may be stacked."""
    return nn.get_partition_spec(_decoder(config, stacked))


@functools.lru_cache(maxsize=8)
def _decoder(config: DecoderConfig, stacked: bool) -> Any:
    named = decoder.shapes(Decoder(config))
    return jax.eval_shape(functools.partial(stacking.stack, config=config), named) if stacked else named


def shardings(model: Decoder, params: Any, place: Placement) -> Any:
    """For each of the parameters `{"decoder": ..., ...}` where it lies.

    Raises:
      InputError: the model cannot be split so.
    """
    place.check_units(model.config.units)
    return place.of_params(named(model, params))
