"""Rotary positions: each pair of axes of a head turns with the position, at a frequency of its own.

Scores of turned queries and keys depend on their distance alone (Su et al., 2021). Frequencies that are slowed
reach further than the model was trained: all of them (linear scaling, Chen et al., 2023) or the slow ones (Llama 3.1).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

Scaling = Callable[[jax.Array], jax.Array]


def rotate(x_BxTxNxH: jax.Array, positions_BxT: jax.Array, theta: float, scaling: Scaling | None = None) -> jax.Array:
    """Rotary position embedding in the half-split layout that Llama checkpoints use.

    Args:
      theta: pair j of the H / 2 pairs turns by theta^(-2j/H) a position.
      scaling: what happens to these frequencies [H / 2] first, of `slowed`.
    """
    half = x_BxTxNxH.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is not None:
        frequencies = scaling(frequencies)
    angles = positions_BxT.astype(jnp.float32)[:, :, None, None] * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x_BxTxNxH.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return rotated.astype(x_BxTxNxH.dtype)


def slowed(factor: float, original: int, low: float, high: float) -> Scaling | None:
    """Frequencies divided by `factor`: all of them where `original` is 0, else the slow ones.

    A frequency with fewer than `low` turns in `original` positions is divided, one with more than `high` turns is
    not, and between the two it is a mixture. None where the factor is 1.

    >>> slowed(8.0, 100, 1.0, 4.0)(jnp.array([1.0, 0.157, 0.01])).round(4)  # 16, 2.5 and 0.16 turns
    Array([1.    , 0.0883, 0.0012], dtype=float32)
    """
    if factor == 1.0:
        return None

    def scaling(frequencies: jax.Array) -> jax.Array:
        if not original:
            return frequencies / factor
        turns = original * frequencies / (2 * jnp.pi)
        kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        return (1.0 - kept) * frequencies / factor + kept * frequencies

    return scaling
