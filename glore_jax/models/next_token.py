"""What a decoder expects of the next token, by chunks of positions: logits of a large vocabulary never exist whole."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.models import decoder
from glore_jax.models.execution import Execution

_LOGITS = 2**24  # that a device holds at a time, or those of so many positions
_CPU_LOGITS = 2**26  # a host has more room, and fewer processors to compute them again for their gradients
_POSITIONS = 256  # fewer make thin products


def judge(model: Any, params: Any, hidden_BxTxD: jax.Array, targets_BxT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Surprise [B, T] at the targets, in nats, and whether they are what was expected most, as 0 or 1 [B, T].

    Args:
      model: a `Decoder`; or anything else that made the hidden states, without a cap of logits.
      params: of the decoder.
    """
    execution = getattr(model, "execution", Execution())
    name = "unembedding" if "unembedding" in params else "embedding"
    hidden_BxTxD, part = execution.in_turn(hidden_BxTxD, params[name])
    table_VxD = execution.gather(part, ("vocab", "embed"), hidden_BxTxD.dtype)

    def of_chunk(hidden_BxCxD: jax.Array, targets_BxC: jax.Array) -> tuple[jax.Array, jax.Array]:
        if execution.flat:  # see `products.product`
            hidden_BxCxD = hidden_BxCxD.reshape(-1, hidden_BxCxD.shape[-1])
        logits = decoder.logits({name: table_VxD}, hidden_BxCxD, model, execution.flat).reshape(*targets_BxC.shape, -1)
        # One-hot products instead of gathers: their gradients are products too, and XLA's CPU scatter is slow.
        picked_BxC = jnp.sum(logits * jax.nn.one_hot(targets_BxC, logits.shape[-1]), axis=-1)
        nats_BxC = jax.nn.logsumexp(logits, axis=-1) - picked_BxC
        return nats_BxC, (picked_BxC >= jax.lax.stop_gradient(logits).max(axis=-1)).astype(jnp.float32)

    B, T = targets_BxT.shape
    rows, parts = execution.parts
    size = chunk(T // parts, max(1, B // rows), table_VxD.shape[0], execution.platform)
    if size * parts == T:
        return of_chunk(hidden_BxTxD, targets_BxT)

    def cut(x: jax.Array) -> jax.Array:
        """[chunks, B, C, ...], each with positions of every part that rows are split into; padded at their ends."""
        x = x.reshape(B, parts, T // parts, *x.shape[2:])
        x = jnp.pad(x, [(0, 0), (0, 0), (0, -(T // parts) % size)] + [(0, 0)] * (x.ndim - 3))
        x = x.reshape(B, parts, -1, size, *x.shape[3:])
        return jnp.moveaxis(x, 2, 0).reshape(-1, B, parts * size, *x.shape[4:])

    def join(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x.reshape(-1, B, parts, size), 0, 2)
        return x.reshape(B, parts, -1)[..., : T // parts].reshape(B, T)

    nats, right = jax.lax.map(lambda chunk: jax.checkpoint(of_chunk)(*chunk), (cut(hidden_BxTxD), cut(targets_BxT)))
    return join(nats), join(right)


def chunk(tokens: int, rows: int, vocabulary: int, platform: str) -> int:
    """How many positions of each row a device computes together: all, or as many as there is room for, evenly.

    >>> chunk(512, 1, 32_000, "tpu"), chunk(2048, 1, 32_000, "tpu"), chunk(576, 16, 262_144, "tpu")
    (512, 512, 16)
    >>> chunk(2048, 1, 32_000, "cpu"), chunk(576, 16, 262_144, "cpu")
    (2048, 16)
    """
    logits = _CPU_LOGITS if platform == "cpu" else _LOGITS
    room = max(logits // vocabulary, _POSITIONS) // rows
    chunks = -(-tokens // max(1, room))
    return -(-tokens // chunks)
