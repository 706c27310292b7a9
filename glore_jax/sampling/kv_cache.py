"""The key-value cache of the decoding slots.

Slots that lie side by side form a group, and a group has one prefix: `shared_k` and `shared_v`, of `prefix_columns`,
filled by copying a prefilled source. Rollouts of one draft sit in one group, each seeing the draft up to its own branch
point. What a slot writes itself is its own: `k` and `v`, of `ring` columns that all slots write in step, one column for
everybody at every decoding step, round and round. One column for all makes the write a plain slice update (a write at a
row's own position would be a scatter, which XLA's CPU backend runs row by row); what a slot may see of the ring follows
from the step at which it started.

A cache of the kind `int8` keeps eight bits a number, and a float32 scale for each column of each head.

Shape suffixes: B slots, N groups, P sources of a prefill, K key heads, S columns, H head size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from glore_jax.models.decoder import Cache, DecoderConfig


def zeros(config: DecoderConfig, rows: int, columns: int, kind: str = "same") -> Cache:
    """An empty cache: for each layer `k` of shape [rows, K, H, columns] and `v` of shape [rows, K, columns, H].

    Args:
      kind: `same`, in the dtype that the model computes in; or `int8`, with `k_scale` and `v_scale` of shape
        [rows, K, columns].
    """
    K, H = config.num_kv_heads, config.head_dim
    dtype = jnp.int8 if kind == "int8" else jnp.dtype(config.dtype)
    made = {"k": ((rows, K, H, columns), dtype), "v": ((rows, K, columns, H), dtype)}
    if kind == "int8":
        made |= dict.fromkeys(("k_scale", "v_scale"), ((rows, K, columns), jnp.float32))
    return [{name: jnp.zeros(*of) for name, of in made.items()} for _ in range(config.num_layers)]


def of_slots(
    config: DecoderConfig, slots: int, width: int, prefix_columns: int, ring: int, kind: str = "same"
) -> Cache:
    """An empty cache of so many slots, in groups of `width`."""
    shared = zeros(config, slots // width, prefix_columns, kind)
    own = zeros(config, slots, ring, kind)
    return [mine | {f"shared_{name}": x for name, x in ours.items()} for mine, ours in zip(own, shared, strict=True)]


def insert(cache: Cache, prefilled: Cache, source_N: jax.Array, fill_N: jax.Array) -> Cache:
    """Copies prefilled sources, of P rows and the prefix columns alone, to some groups.

    Args:
      source_N: which source each group takes.
      fill_N: bool, which groups take one; the others keep what they have.
    """

    def put(kept: jax.Array, sources: jax.Array) -> jax.Array:
        fill = fill_N.reshape((-1,) + (1,) * (kept.ndim - 1))
        return jnp.where(fill, jnp.take(sources, source_N, axis=0), kept)

    return [
        layer | {f"shared_{name}": put(layer[f"shared_{name}"], x) for name, x in sources.items()}
        for layer, sources in zip(cache, prefilled, strict=True)
    ]


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
