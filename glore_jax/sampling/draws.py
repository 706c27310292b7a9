"""How a token is drawn from logits: greedily, or by inverting the distribution function at one uniform a row.

Nothing here sorts the vocabulary. What the k-th largest logit is, or down to which logit a share p of the probability
lies, is found by bisection over the 32 bits of a float; where in the distribution a uniform falls, by sums of blocks
and then within one block.

Shape suffixes: B rows, V vocabulary, N blocks, W tokens of a block.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_EXACT = jax.lax.Precision.HIGHEST  # a TPU would multiply in bfloat16


def uniforms(key: jax.Array, name_Bx2: jax.Array, position_B: jax.Array) -> jax.Array:
    """One uniform a row, named by request and token position, so the same in any batch."""

    def one(name_2: jax.Array, position: jax.Array) -> jax.Array:
        named = jax.random.fold_in(jax.random.fold_in(key, name_2[0]), name_2[1])
        return jax.random.uniform(jax.random.fold_in(named, position))

    return jax.vmap(one)(name_Bx2, position_B)


def draw(
    logits_BxV: jax.Array,
    uniform_B: jax.Array,
    temperature_B: jax.Array,
    top_k_B: jax.Array | None = None,
    top_p_B: jax.Array | None = None,
) -> jax.Array:
    """One token a row: the first of the highest logits at temperature 0, else a sample.

    Args:
      uniform_B: from 0 to 1, exclusively; names the sample.
      top_k_B: only so many of the most likely tokens (and their equals) can be drawn; 0: all.
      top_p_B: only the most likely tokens (and the equals of the last) whose share of the probability, after
        temperature and top-k, comes to this; 1: all.
    """
    top_BxV = jnp.max(logits_BxV, axis=-1, keepdims=True)
    scale_Bx1 = jnp.where(temperature_B > 0, temperature_B, 1.0)[:, None]
    mass_BxV = jnp.exp((logits_BxV - top_BxV) / scale_Bx1)
    if top_k_B is not None and top_p_B is not None:
        limited = jnp.any((temperature_B > 0) & ((top_k_B > 0) | (top_p_B < 1)))
        mass_BxV = jax.lax.cond(limited, _limited, lambda mass, *_: mass, mass_BxV, top_k_B, top_p_B)
    return jnp.where(temperature_B > 0, _invert(mass_BxV, uniform_B), _first(logits_BxV == top_BxV))


def _first(hit_BxV: jax.Array) -> jax.Array:
    """The first token of each row that is hit, or the last one of the vocabulary (where all logits are NaN).

    (XLA's argmax takes eight times as long on a CPU.)
    """
    V = hit_BxV.shape[1]
    return jnp.min(jnp.where(hit_BxV, jnp.arange(V, dtype=jnp.int32)[None, :], V - 1), axis=-1)


def _invert(mass_BxV: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """The token at which the sum of masses passes a share `uniform_B` of their total."""
    B, V = mass_BxV.shape
    W = 2 ** math.ceil(math.log2(V) / 2)
    blocks_BxNxW = jnp.pad(mass_BxV, ((0, 0), (0, -V % W))).reshape(B, -1, W)
    block_BxN = jnp.sum(blocks_BxNxW, axis=-1)
    until_BxN = _cumulative(block_BxN)
    goal_Bx1 = uniform_B[:, None] * until_BxN[:, -1:]
    at_B = _passing(until_BxN, goal_Bx1, block_BxN)
    here_BxN = at_B[:, None] == jnp.arange(block_BxN.shape[1])[None, :]
    inside_BxW = jnp.sum(jnp.where(here_BxN[:, :, None], blocks_BxNxW, 0.0), axis=1)
    before_Bx1 = jnp.sum(jnp.where(here_BxN, until_BxN - block_BxN, 0.0), axis=-1, keepdims=True)
    return at_B * W + _passing(before_Bx1 + _cumulative(inside_BxW), goal_Bx1, inside_BxW)


def _passing(sum_BxN: jax.Array, goal_Bx1: jax.Array, mass_BxN: jax.Array) -> jax.Array:
    """The first entry of some mass at which the sum is above the goal; the last one, where rounding hides it."""
    places = jnp.arange(mass_BxN.shape[1], dtype=jnp.int32)[None, :]
    last_Bx1 = jnp.max(jnp.where(mass_BxN > 0, places, 0), axis=-1, keepdims=True)
    return jnp.min(jnp.where((sum_BxN > goal_Bx1) & (mass_BxN > 0), places, last_Bx1), axis=-1)


def _cumulative(x_BxN: jax.Array) -> jax.Array:
    """Sums of a row's first entries, as a matrix product (six times as fast as a scan on a CPU)."""
    N = x_BxN.shape[1]
    return jnp.matmul(x_BxN, jnp.triu(jnp.ones((N, N), x_BxN.dtype)), precision=_EXACT)


def _limited(mass_BxV: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """Masses of the most likely tokens; of the others 0.

    A mass is not negative, so its bits, read as a number, are ordered as it is.
    """
    bits_BxV = jax.lax.bitcast_convert_type(mass_BxV, jnp.int32)
    count_B = jnp.where(top_k_B > 0, top_k_B, mass_BxV.shape[1]).astype(jnp.float32)
    kept_BxV = bits_BxV >= _bisect(bits_BxV, jnp.ones_like(mass_BxV), count_B)[:, None]
    mass_BxV = jnp.where(kept_BxV, mass_BxV, 0.0)
    total_B = jnp.sum(mass_BxV, axis=-1)
    threshold_B = _bisect(bits_BxV, mass_BxV, top_p_B * total_B)
    return jnp.where((bits_BxV >= threshold_B[:, None]) | (top_p_B >= 1)[:, None], mass_BxV, 0.0)


def _bisect(bits_BxV: jax.Array, weight_BxV: jax.Array, goal_B: jax.Array) -> jax.Array:
    """The largest number for which the weights of all entries not below it sum up to the goal; 0 if none does."""

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B, high_B = bounds  # low reaches the goal, high does not
        middle_B = low_B + (high_B - low_B) // 2
        reached_B = jnp.sum(jnp.where(bits_BxV >= middle_B[:, None], weight_BxV, 0.0), axis=-1) >= goal_B
        return jnp.where(reached_B, middle_B, low_B), jnp.where(reached_B, high_B, middle_B)

    none = jnp.zeros(bits_BxV.shape[0], jnp.int32)
    return jax.lax.fori_loop(0, 31, halve, (none, none + jnp.iinfo(jnp.int32).max))[0]
