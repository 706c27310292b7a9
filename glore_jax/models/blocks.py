"""Attention of whole rows on CPUs: a block of queries at a time, and of the keys those between which it sees any.

XLA's attention writes the scores of all pairs of tokens to memory, several times over; in packed rows most of them are
hidden. Here those of a block of one row stay in the cache. On the way back they are computed again from what each
query's scores came to, as in flash attention (Dao et al. 2022, arXiv 2205.14135, algorithm 4).

Shape suffixes: B rows, T tokens, N query heads, K key heads, H head size, A blocks of a row, C queries of a block,
Q = C x (query heads a key head), S keys that are read at a time.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.models.attention import HIDDEN, soft_cap
from glore_jax.models.visibility import Visibility

_BLOCK = 64  # queries, at most; keys are read twice as many at a time


def attend(
    q_BxTxNxH: jax.Array, k_BxTxKxH: jax.Array, v_BxTxKxH: jax.Array, visible: Visibility, window: int, cap: float
) -> jax.Array:
    """What the queries read, [B, T, N, H]; of padding, anything. The arguments are as of `kernels.attend`."""
    B, T, N, H = q_BxTxNxH.shape
    K = k_BxTxKxH.shape[2]
    count = -(-T // _BLOCK)
    size = -(-T // count)
    more = size * count - T
    beyond = more + 2 * size  # keys may be read from any column on
    q = jnp.pad(q_BxTxNxH, ((0, 0), (0, more), (0, 0), (0, 0)))
    k, v = (jnp.pad(x.transpose(0, 2, 1, 3), ((0, 0), (0, 0), (0, beyond), (0, 0))) for x in (k_BxTxKxH, v_BxTxKxH))
    visible = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, beyond))), visible)
    q_BxAxKxQxH = q.reshape(B, count, size, K, N // K, H).transpose(0, 1, 3, 4, 2, 5).reshape(B, count, K, -1, H)
    mixed: Any = _rows(window, cap, q_BxAxKxQxH, k, v, visible)
    mixed = mixed.reshape(B, count, K, N // K, size, H)
    return mixed.transpose(0, 1, 4, 2, 3, 5).reshape(B, -1, N, H)[:, :T]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rows(window: int, cap: float, *rows: Any) -> jax.Array:
    """What the queries of all rows read, [B, A, K, Q, H].

    Args:
      rows: queries like that, keys and values [B, K, T, H], and who sees whom.
    """
    return _forward(window, cap, *rows)[0]


def _forward(window: int, cap: float, *rows: Any) -> tuple[jax.Array, Any]:
    def of_row(row: Any) -> tuple[jax.Array, jax.Array]:
        q_AxKxQxH, k_KxTxH, v_KxTxH, visible = row
        read = _Row(k_KxTxH, v_KxTxH, visible, q_AxKxQxH.shape[0], window, cap)

        def of_block(block: Any) -> tuple[jax.Array, jax.Array]:
            which, q_KxQxH = block

            def add(sums: Any, part: _Keys) -> Any:
                """To the highest score of each query, the sum of its weights by that, and their mixture."""
                top_KxQ, total_KxQ, mixed_KxQxH = sums
                scores_KxQxS = part.scores(q_KxQxH)
                higher_KxQ = jnp.maximum(top_KxQ, scores_KxQxS.max(axis=-1))
                weights_KxQxS = jnp.exp(scores_KxQxS - higher_KxQ[..., None])
                less_KxQ = jnp.exp(top_KxQ - higher_KxQ)
                more_KxQxH = _sums("kqs,ksh->kqh", weights_KxQxS.astype(q_KxQxH.dtype), part.v_KxSxH)
                total_KxQ = less_KxQ * total_KxQ + weights_KxQxS.sum(axis=-1)
                return higher_KxQ, total_KxQ, less_KxQ[..., None] * mixed_KxQxH + more_KxQxH

            K, Q, H = q_KxQxH.shape
            zeros = jnp.full((K, Q), HIDDEN), jnp.zeros((K, Q)), jnp.zeros((K, Q, H))
            top_KxQ, total_KxQ, mixed_KxQxH = read.keys_of(which, add, zeros)
            mixed_KxQxH = mixed_KxQxH / total_KxQ[..., None]
            return mixed_KxQxH.astype(q_KxQxH.dtype), top_KxQ + jnp.log(total_KxQ)

        return jax.lax.map(of_block, (read.blocks, q_AxKxQxH))

    mixed_BxAxKxQxH, sums_BxAxKxQ = jax.lax.map(of_row, rows)
    return mixed_BxAxKxQxH, (rows, mixed_BxAxKxQxH, sums_BxAxKxQ)


def _backward(window: int, cap: float, kept: Any, pull_BxAxKxQxH: jax.Array) -> tuple[Any, ...]:
    rows, mixed_BxAxKxQxH, sums_BxAxKxQ = kept
    pulled_BxAxKxQ = jnp.sum((pull_BxAxKxQxH * mixed_BxAxKxQxH).astype(jnp.float32), axis=-1)

    def of_row(row: Any) -> tuple[jax.Array, ...]:
        (q_AxKxQxH, k_KxTxH, v_KxTxH, visible), *of_blocks = row
        read, dtype = _Row(k_KxTxH, v_KxTxH, visible, q_AxKxQxH.shape[0], window, cap), q_AxKxQxH.dtype

        def of_block(changes: Any, block: Any) -> tuple[Any, jax.Array]:
            which, q_KxQxH, pull_KxQxH, sums_KxQ, pulled_KxQ = block

            def add(changes: Any, part: _Keys) -> Any:
                k_change_KxTxH, v_change_KxTxH, q_change_KxQxH = changes
                scores_KxQxS = part.scores(q_KxQxH)
                weights_KxQxS = jnp.exp(scores_KxQxS - sums_KxQ[..., None])
                wanted_KxQxS = jnp.einsum("kqh,ksh->kqs", pull_KxQxH, part.v_KxSxH).astype(jnp.float32)
                change_KxQxS = weights_KxQxS * (wanted_KxQxS - pulled_KxQ[..., None])
                if cap:
                    change_KxQxS *= jnp.where(scores_KxQxS > HIDDEN, 1.0 - jnp.square(scores_KxQxS / cap), 0.0)
                change_KxQxS, weights_KxQxS = change_KxQxS.astype(dtype), weights_KxQxS.astype(dtype)
                return (
                    part.added(k_change_KxTxH, _sums("kqs,kqh->ksh", change_KxQxS, q_KxQxH)),
                    part.added(v_change_KxTxH, _sums("kqs,kqh->ksh", weights_KxQxS, pull_KxQxH)),
                    q_change_KxQxH + _sums("kqs,ksh->kqh", change_KxQxS, part.k_KxSxH),
                )

            *changes, q_change_KxQxH = read.keys_of(which, add, (*changes, jnp.zeros(q_KxQxH.shape)))
            return tuple(changes), q_change_KxQxH.astype(dtype)

        zeros = jnp.zeros(k_KxTxH.shape), jnp.zeros(v_KxTxH.shape)
        changes, q_change_AxKxQxH = jax.lax.scan(of_block, zeros, (read.blocks, q_AxKxQxH, *of_blocks))
        return q_change_AxKxQxH, *(x.astype(dtype) for x in changes)

    return *jax.lax.map(of_row, (rows, pull_BxAxKxQxH, sums_BxAxKxQ, pulled_BxAxKxQ)), None


_rows.defvjp(_forward, _backward)


def _sums(subscripts: str, *factors: jax.Array) -> jax.Array:
    """Products of matrices in the dtype of the layers, to be summed in float32."""
    return jnp.einsum(subscripts, *factors).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class _Keys:
    """Some keys in a row. Attributes: first (their first column), seen_CxS (by which queries of the block)."""

    first: jax.Array
    k_KxSxH: jax.Array
    v_KxSxH: jax.Array
    seen_CxS: jax.Array
    cap: float

    def scores(self, q_KxQxH: jax.Array) -> jax.Array:
        """[K, Q, S] in float32, capped, and those of hidden keys far below all others."""
        scores_KxQxS = jnp.einsum("kqh,ksh->kqs", q_KxQxH, self.k_KxSxH).astype(jnp.float32)
        C, S = self.seen_CxS.shape
        scores_KxGxCxS = soft_cap(scores_KxQxS, self.cap).reshape(scores_KxQxS.shape[0], -1, C, S)
        return jnp.where(self.seen_CxS[None, None], scores_KxGxCxS, HIDDEN).reshape(scores_KxQxS.shape)

    def added(self, whole_KxTxH: jax.Array, part_KxSxH: jax.Array) -> jax.Array:
        """Something of all keys of the row, and what these add to it."""
        before = jax.lax.dynamic_slice_in_dim(whole_KxTxH, self.first, part_KxSxH.shape[1], axis=1)
        return jax.lax.dynamic_update_slice_in_dim(whole_KxTxH, before + part_KxSxH, self.first, axis=1)


class _Row:
    """The keys of a row, and the blocks of its queries.

    Attributes:
      blocks: [A] each, of a block its first column, the first one that it sees, and how often keys are read for it.
    """

    def __init__(
        self, k_KxTxH: jax.Array, v_KxTxH: jax.Array, visible: Visibility, count: int, window: int, cap: float
    ):
        self.k, self.v, self.window, self.cap = k_KxTxH, v_KxTxH, window, cap
        self.visible = jax.tree.map(lambda x_T: x_T[None], visible)
        self.size = k_KxTxH.shape[1] // (count + 2)
        inside = count * self.size
        first, last = (x[0, :inside].reshape(count, -1) for x in self.visible.reach(window))
        begin = first.min(axis=1)
        self.blocks = jnp.arange(count) * self.size, begin, (last.max(axis=1) - begin) // (2 * self.size) + 1

    def keys_of(self, block: tuple[jax.Array, ...], add: Any, start: Any) -> Any:
        """`add(sums, keys)` over the keys that a block sees, from `start` on."""
        at, begin, times = block
        queries = self._columns(at, self.size)

        def part(i: jax.Array, sums: Any) -> Any:
            first, size = begin + i * 2 * self.size, 2 * self.size
            seen_CxS = Visibility.between(queries, self._columns(first, size), self.window)[0]
            k, v = (jax.lax.dynamic_slice_in_dim(x, first, size, axis=1) for x in (self.k, self.v))
            return add(sums, _Keys(first, k, v, seen_CxS, self.cap))

        return jax.lax.fori_loop(0, times, part, start)

    def _columns(self, first: jax.Array, size: int) -> tuple[Visibility, jax.Array]:
        visible = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size, axis=1), self.visible)
        return visible, first + jnp.arange(size)
