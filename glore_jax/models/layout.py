"""Where the parameters of a model lie: a decoder's by the names of their axes, heads and adapters whole everywhere."""

from __future__ import annotations

import functools
from typing import Any

import jax

from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.parallel.placement import Placement


def named(model: Decoder, params: Any) -> Any:
    """Shapes of parameters `{"decoder": ..., ...}`, those of the decoder with the names of their axes.

    Args:
      params: arrays or their shapes. What is made of such a tree by `jax.eval_shape`, as an optimizer's moments, keeps
        the names.
    """
    rest = {name: tree for name, tree in params.items() if name != "decoder"}
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), rest)
    return shapes | ({"decoder": _decoder(model.config)} if "decoder" in params else {})


@functools.lru_cache(maxsize=8)
def _decoder(config: DecoderConfig) -> Any:
    return decoder.shapes(Decoder(config))


def shardings(model: Decoder, params: Any, place: Placement) -> Any:
    """For each of the parameters `{"decoder": ..., ...}` where it lies.

    Raises:
      InputError: the model cannot be split so.
    """
    place.check_units(model.config.units)
    return place.of_params(named(model, params))
