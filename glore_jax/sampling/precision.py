"""In how many bits the sampler computes, and keeps weights, keys and values.

`sampling.dtype` is what it computes in, and what weights and cache are kept in where nothing else is said. In float32 a
token does not depend on what is sampled beside it; bfloat16 takes half the memory, and sums that are ordered otherwise
in another batch may end on another token. `sampling.weights` and `sampling.cache` are `same` or `int8`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.errors import InputError
from glore_jax.models import layout, quantised
from glore_jax.models.decoder import Decoder
from glore_jax.models.quantised import Int8
from glore_jax.parallel.placement import Placement

CHOICES = {"dtype": ("float32", "bfloat16", "float16"), "weights": ("same", "int8"), "cache": ("same", "int8")}
_int8 = jax.jit(Int8.of, static_argnames="axis")
_LINEAR = ("wq", "wk", "wv", "wo", "gate", "up", "down")  # [in, out]
_WORDS = ("embedding", "unembedding")  # [vocabulary, D]


def check(settings: Any) -> None:
    """InputError where the group `sampling` asks for a precision that there is none of."""
    for key, choices in CHOICES.items():
        if getattr(settings, key) not in choices:
            raise InputError(f"sampling.{key}={getattr(settings, key)!r}: expected one of {', '.join(choices)}")


def kept(params: Any, settings: Any) -> Any:
    """A decoder's parameters as the sampler keeps them.

    Matrices are in `sampling.dtype`, or in eight bits with a scale for each output; biases are in `sampling.dtype`, and
    the scales of norms, which are few and are used in float32, as they were.
    """

    def one(path: Any, x: Any) -> Any:
        name = path[-1].key
        if settings.weights == "int8" and name in _LINEAR:
            return _int8(x, axis=-2)
        if settings.weights == "int8" and name in _WORDS:
            return _int8(x, axis=-1)
        return x if name == "scale" or x.dtype == settings.dtype else jnp.asarray(x, settings.dtype)

    return jax.tree_util.tree_map_with_path(one, params)


def shardings(model: Decoder, params: Any, place: Placement) -> Any:
    """Where the parameters lie that `kept` gives back, arrays or their shapes.

    Raises:
      InputError: the model cannot be split so.
    """
    return quantised.placed(params, layout.shardings(model, {"decoder": params}, place)["decoder"])
