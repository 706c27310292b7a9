"""The key-value cache of the decoding slots.

Each slot has `prefix_columns` columns, filled once by copying a prefilled source, and
`suffix_columns` columns that all slots write in step, one column for everybody at every decoding
step, as a ring. One column for all makes the write a plain slice update (a write at a row's own
position would be a scatter, which XLA's CPU backend runs row by row); what a slot may see of the
ring follows from the step at which it started.

Shape suffixes: B slots, P sources of a prefill, K key heads, S columns, H head size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from glore_jax.models.decoder import Cache, DecoderConfig


def zeros(config: DecoderConfig, rows: int, columns: int) -> Cache:
    """An empty cache: for each layer `k` of shape [rows, K, H, columns] and `v` of shape [rows, K, columns, H]."""
    K, H, dtype = config.num_kv_heads, config.head_dim, jnp.dtype(config.dtype)
    shapes = {"k": (rows, K, H, columns), "v": (rows, K, columns, H)}
    return [{name: jnp.zeros(shape, dtype) for name, shape in shapes.items()} for _ in range(config.num_layers)]


def insert(cache: Cache, prefilled: Cache, source_B: jax.Array, fill_B: jax.Array) -> Cache:
    """Copies prefilled sources, of P rows and the prefix columns alone, into the prefix columns of some slots.

    Args:
      source_B: which source each slot takes.
      fill_B: bool, which slots take one; the others keep what they have.
    """

    def put(slots: jax.Array, sources: jax.Array) -> jax.Array:
        prefix = tuple(slice(0, size) for size in sources.shape[1:])  # the columns are the last axis or that before it
        kept = slots[:, *prefix]
        taken = jnp.where(fill_B[:, None, None, None], jnp.take(sources, source_B, axis=0), kept)
        return slots.at[:, *prefix].set(taken)

    return jax.tree.map(put, cache, prefilled)


def visible(prefix_B: jax.Array, start_B: jax.Array, step: jax.Array, prefix_columns: int, ring: int) -> jax.Array:
    """Which columns each slot may attend to at decoding step `step`: bool [B, prefix_columns + ring].

    Prefix columns count up to the slot's own prefix length. Ring column j was last written at the
    latest step s <= `step` with s % ring == j, and belongs to the slot if s is not before its start.

    >>> visible(jnp.array([1, 2]), jnp.array([0, 3]), jnp.array(3), 2, 3).astype(int)
    Array([[1, 0, 1, 1, 1],
           [1, 1, 1, 0, 0]], dtype=int32)
    """
    prefix = jnp.arange(prefix_columns)[None, :] < prefix_B[:, None]
    columns = jnp.arange(ring)
    written = step - (step - columns) % ring
    return jnp.concatenate([prefix, written[None, :] >= start_B[:, None]], axis=1)


def positions(prefix_B: jax.Array, start_B: jax.Array, step: jax.Array, prefix_columns: int, ring: int) -> jax.Array:
    """At which position of its sequence each column stands: int32 [B, prefix_columns + ring].

    It holds for the columns that are `visible`: prefix column j is position j, and what a slot wrote n steps after
    its start stands n after its prefix.

    >>> positions(jnp.array([1, 2]), jnp.array([0, 3]), jnp.array(3), 2, 3)[:, 2:]
    Array([[4, 2, 3],
           [2, 0, 1]], dtype=int32)
    """
    prefix = jnp.broadcast_to(jnp.arange(prefix_columns)[None, :], (prefix_B.shape[0], prefix_columns))
    columns = jnp.arange(ring)
    written = step - (step - columns) % ring
    return jnp.concatenate([prefix, (prefix_B - start_B)[:, None] + written[None, :]], axis=1)
