"""Softmax attention of queries to keys of their own and, where rows share them, to keys of their group.

Rollouts of one draft read the same prefix. Rows that lie side by side form a group, whose prefix is kept once: one
matrix product of all the group's queries with it takes the place of as many small ones, and reads it once.

Shape suffixes: B rows, W rows of a group, T queries a row, K key heads, G query heads a key head, H head size,
S own columns, P shared columns.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from glore_jax.models.quantised import quantise

_COLUMNS = {"k": 3, "v": 2, "k_scale": 2, "v_scale": 2}  # the axis of the columns
HIDDEN = -1e9  # the score of a key that a query may not see


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """Values squashed to (-cap, cap), near 0 as they were; a cap of 0 changes nothing."""
    return cap * jnp.tanh(x / cap) if cap else x


def write(cache: dict[str, jax.Array], new: dict[str, jax.Array], column: jax.Array) -> dict[str, jax.Array]:
    """A layer's cache with the `k` and `v` of new tokens from a column on; quantised, where the cache is int8."""
    if cache["k"].dtype == jnp.int8:
        k, k_scale = quantise(new["k"], axis=2)
        v, v_scale = quantise(new["v"], axis=3)
        new = {"k": k, "v": v, "k_scale": k_scale[:, :, 0], "v_scale": v_scale[..., 0]}
    return cache | {
        name: jax.lax.dynamic_update_slice_in_dim(cache[name], x.astype(cache[name].dtype), column, _COLUMNS[name])
        for name, x in new.items()
    }


def mix(q_BxKxGTxH: jax.Array, keys: dict[str, jax.Array], mask_BxTxC: jax.Array, cap: float = 0.0) -> jax.Array:
    """What the queries read, [B, K, G * T, H].

    Args:
      q_BxKxGTxH: queries, scaled; the T of a head lie together.
      keys: `k` [B, K, H, S] and `v` [B, K, S, H]; and, or not, `shared_k` [B / W, K, H, P] and `shared_v`
        [B / W, K, P, H] of groups of W rows. Quantised ones have scales, `k_scale` [B, K, S] and so on.
      mask_BxTxC: which columns each query sees: the P shared ones first, then the S of its own.
      cap: see `soft_cap`.
    """
    B, K, GT, _ = q_BxKxGTxH.shape
    T, dtype = mask_BxTxC.shape[1], q_BxKxGTxH.dtype
    shared = "shared_k" in keys
    scores = _scores(q_BxKxGTxH, keys, "k")
    if shared:
        queries = _gather(q_BxKxGTxH, keys["shared_k"].shape[0])
        scores = jnp.concatenate([_spread(_scores(queries, keys, "shared_k"), B), scores], axis=-1)
    scores_BxKxGxTxC = scores.reshape(B, K, GT // T, T, -1).astype(jnp.float32)
    scores_BxKxGxTxC = jnp.where(mask_BxTxC[:, None, None], soft_cap(scores_BxKxGxTxC, cap), HIDDEN)
    weights = jax.nn.softmax(scores_BxKxGxTxC, axis=-1).astype(dtype).reshape(B, K, GT, -1)
    if not shared:
        return _mixture(weights, keys, "v")
    columns = keys["shared_v"].shape[2]
    of_shared = _gather(weights[..., :columns], keys["shared_v"].shape[0])
    own = _mixture(weights[..., columns:], keys, "v")
    return _spread(_mixture(of_shared, keys, "shared_v"), B) + own


def _scores(q_BxKxTxH: jax.Array, keys: dict[str, jax.Array], name: str) -> jax.Array:
    """Products of queries and keys [B, K, T, S]; what a column's scale makes of them is made of the product."""
    scores = jnp.einsum("bkth,bkhs->bkts", q_BxKxTxH, keys[name].astype(q_BxKxTxH.dtype))
    return _scaled(scores, keys.get(f"{name}_scale"))


def _mixture(weights_BxKxTxS: jax.Array, keys: dict[str, jax.Array], name: str) -> jax.Array:
    """Values [B, K, T, H], weighted; a column's scale goes into its weight."""
    weights_BxKxTxS = _scaled(weights_BxKxTxS, keys.get(f"{name}_scale"))
    return jnp.einsum("bkts,bksh->bkth", weights_BxKxTxS, keys[name].astype(weights_BxKxTxS.dtype))


def _scaled(x_BxKxTxS: jax.Array, scale_BxKxS: jax.Array | None) -> jax.Array:
    if scale_BxKxS is None:
        return x_BxKxTxS
    return (x_BxKxTxS.astype(jnp.float32) * scale_BxKxS[:, :, None]).astype(x_BxKxTxS.dtype)


def read(q_BxTxNxH: jax.Array, keys: dict[str, jax.Array], mask_BxTxC: jax.Array, cap: float = 0.0) -> jax.Array:
    """What query heads read, [B, T, N, H]; the rest as of `mix`."""
    B, T, N, H = q_BxTxNxH.shape
    K = keys["k"].shape[1]
    q_BxKxGxTxH = q_BxTxNxH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    mixed = mix(q_BxKxGxTxH.reshape(B, K, -1, H), keys, mask_BxTxC, cap)
    return mixed.reshape(B, K, N // K, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def _gather(x_BxKxTxY: jax.Array, groups: int) -> jax.Array:
    """Rows of a group as one row of more queries: [groups, K, W * T, Y]."""
    B, K, T, Y = x_BxKxTxY.shape
    return x_BxKxTxY.reshape(groups, B // groups, K, T, Y).transpose(0, 2, 1, 3, 4).reshape(groups, K, -1, Y)


def _spread(x_NxKxWTxY: jax.Array, rows: int) -> jax.Array:
    """The inverse of `_gather`: [rows, K, T, Y]."""
    groups, K, WT, Y = x_NxKxWTxY.shape
    W = rows // groups
    return x_NxKxWTxY.reshape(groups, K, W, WT // W, Y).transpose(0, 2, 1, 3, 4).reshape(rows, K, WT // W, Y)
