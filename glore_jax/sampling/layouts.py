"""How the slots lie in memory: as decoding would have them.

Where nobody says otherwise, JAX lays arrays row by row. On a TPU a chunk of decoding steps would then begin by copying
the cache into another order, and end by copying it back: a second cache. So there the compiler of that chunk says how
keys and values lie, and whatever else works on slots keeps to it. On a CPU they lie row by row, as they have to for its
matrix products.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax

from glore_jax.models.decoder import Decoder
from glore_jax.parallel.placement import Placement
from glore_jax.sampling import decode, programs


def keeping(at: Any) -> tuple[Any, ...]:
    """`decode.bind` and `decode.insert` of slots that lie so, and stay so."""
    return tuple(
        jax.jit(inspect.unwrap(function), donate_argnums=0, out_shardings=at)
        for function in (decode.bind, decode.insert)
    )


class Programs:
    """What is done to slots of one shape; all leave them as they lie.

    Attributes:
      empty: slots that hold nothing.
      bind, insert: as of `decode`.
      chunk: of decoding steps, compiled already where its compiler says how slots lie; else None.
    """

    def __init__(self, model: Decoder, shapes: decode.Shapes, params: Any, place: Placement):
        """Args: params: of the model, on the devices."""
        self.model, self.shapes, self.params, self.whole = model, shapes, params, place.whole
        self.bind, self.insert, self.chunk = decode.bind, decode.insert, None
        at = programs.slots_at(model, shapes, place)
        if programs.compiler_chooses(place):
            self.chunk = programs.decode_chunk(model, shapes, params, place).compile()
            at = self.chunk.input_formats[0][1]
            self.bind, self.insert = keeping(at)
        self.empty = jax.jit(lambda: decode.empty(model.config, shapes), out_shardings=at)

    def decode_chunk(self, slots: decode.Slots, key: jax.Array) -> decode.Slots:
        """A chunk of decoding steps; the slots are donated."""
        if self.chunk is None:
            return decode.decode_chunk(self.model, self.shapes, self.params, slots, key)
        return self.chunk(self.params, slots, jax.device_put(key, self.whole))
