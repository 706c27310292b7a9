"""Softmax attention of queries to keys of their own and, where rows share them, to keys of their group.

Rollouts of one draft read the same prefix. Rows that lie side by side form a group, whose prefix is kept once: one
matrix product of all the group's queries with it takes the place of as many small ones, and reads it once.

Shape suffixes: B rows, W rows of a group, T queries a row, K key heads, G query heads a key head, H head size,
S own columns, P shared columns.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_HIDDEN = -1e9  # the score of a key that a query may not see


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """Values squashed to (-cap, cap), near 0 as they were; a cap of 0 changes nothing."""
    return cap * jnp.tanh(x / cap) if cap else x


def mix(q_BxKxGTxH: jax.Array, keys: dict[str, jax.Array], mask_BxTxC: jax.Array, cap: float = 0.0) -> jax.Array:
    """What the queries read, [B, K, G * T, H].

    Args:
      q_BxKxGTxH: queries, scaled; the T of a head lie together.
      keys: `k` [B, K, H, S] and `v` [B, K, S, H]; and, or not, `shared_k` [B / W, K, H, P] and `shared_v`
        [B / W, K, P, H] of groups of W rows.
      mask_BxTxC: which columns each query sees: the P shared ones first, then the S of its own.
      cap: see `soft_cap`.
    """
    B, K, GT, _ = q_BxKxGTxH.shape
    T, dtype = mask_BxTxC.shape[1], q_BxKxGTxH.dtype
    shared = "shared_k" in keys
    scores = jnp.einsum("bkth,bkhs->bkts", q_BxKxGTxH, keys["k"].astype(dtype))
    if shared:
        queries = _gather(q_BxKxGTxH, keys["shared_k"].shape[0])
        together = jnp.einsum("bkth,bkhs->bkts", queries, keys["shared_k"].astype(dtype))
        scores = jnp.concatenate([_spread(together, B), scores], axis=-1)
    scores_BxKxGxTxC = scores.reshape(B, K, GT // T, T, -1).astype(jnp.float32)
    scores_BxKxGxTxC = jnp.where(mask_BxTxC[:, None, None], soft_cap(scores_BxKxGxTxC, cap), _HIDDEN)
    weights = jax.nn.softmax(scores_BxKxGxTxC, axis=-1).astype(dtype).reshape(B, K, GT, -1)
    if not shared:
        return jnp.einsum("bkts,bksh->bkth", weights, keys["v"].astype(dtype))
    columns = keys["shared_v"].shape[2]
    of_shared = _gather(weights[..., :columns], keys["shared_v"].shape[0])
    together = jnp.einsum("bkts,bksh->bkth", of_shared, keys["shared_v"].astype(dtype))
    own = jnp.einsum("bkts,bksh->bkth", weights[..., columns:], keys["v"].astype(dtype))
    return _spread(together, B) + own


def _gather(x_BxKxTxY: jax.Array, groups: int) -> jax.Array:
    """Rows of a group as one row of more queries: [groups, K, W * T, Y]."""
    B, K, T, Y = x_BxKxTxY.shape
    return x_BxKxTxY.reshape(groups, B // groups, K, T, Y).transpose(0, 2, 1, 3, 4).reshape(groups, K, -1, Y)


def _spread(x_NxKxWTxY: jax.Array, rows: int) -> jax.Array:
    """The inverse of `_gather`: [rows, K, T, Y]."""
    groups, K, WT, Y = x_NxKxWTxY.shape
    W = rows // groups
    return x_NxKxWTxY.reshape(groups, K, W, WT // W, Y).transpose(0, 2, 1, 3, 4).reshape(rows, K, WT // W, Y)
