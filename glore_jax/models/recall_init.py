"""A start for small decoders with the heads that looking things up takes.

To read "Ben has Ann plus 3 nuts" and later find what belongs to Ben, a transformer needs two heads
in a row: one that looks at a neighbour's token, and one that looks for the token it has itself. From a
random start neither helps without the other, and a small model can stay on a plateau for millions of tokens.
Here both are there at the start, and training bends them to its needs: a mimetic initialisation
(Trockman and Kolter, 2023), with distances for rotary positions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.models.decoder import DecoderConfig

OFFSETS = (1, 2, -1, -2)  # of the neighbours that the heads of the first layer look at; 1 is the token before
SHARPNESS = 3.0  # score that each frequency of a neighbour head gives to its distance
LIKENESS = 1.7  # keys and queries of the later layers are this much larger than a random start's
_FREQUENCIES = 6  # rotary frequencies, from the fastest, that tell neighbours apart


def apply(params: Any, config: DecoderConfig, key: jax.Array) -> Any:
    """Parameters [tree of `Decoder.init`] with heads that recall.

    Every token's embedding gets one direction in common, of its own length. In the first layer queries and keys
    read that direction, which makes scores depend on distance alone; in later layers the first query head of each
    key head starts equal to it, so a token looks for its like. Values are written back as they are read.
    """
    c = config
    embedding = params["embedding"]
    common_D = jnp.full((c.d_model,), c.d_model**-0.5)
    own_VxD = embedding - (embedding @ common_D)[:, None] * common_D[None, :]
    out = {**params, "embedding": own_VxD + common_D[None, :]}
    for layer in range(c.num_layers):
        name = f"attention_{layer}"
        weights = _copying(params[name], c, common_D, jax.random.fold_in(key, layer))
        out[name] = _neighbours(weights, c, common_D) if layer == 0 else _likes(weights, c)
    return out


def _copying(weights: Any, c: DecoderConfig, common_D: jax.Array, key: jax.Array) -> Any:
    """Values and output of each head: a projection on a random subspace, the common direction left out."""
    groups = c.num_heads // c.num_kv_heads
    basis_KxDxH = jax.random.orthogonal(key, c.d_model, (c.num_kv_heads,))[:, :, : c.head_dim]
    basis_KxDxH -= common_D[None, :, None] * (common_D @ basis_KxDxH)[:, None, :]
    wv = basis_KxDxH.transpose(1, 0, 2).reshape(c.d_model, -1)
    wo_NxHxD = jnp.repeat(basis_KxDxH.transpose(0, 2, 1), groups, axis=0) * c.d_model**-0.5
    return {**weights, "wv": wv, "wo": wo_NxHxD.reshape(-1, c.d_model)}


def _neighbours(weights: Any, c: DecoderConfig, common_D: jax.Array) -> Any:
    """Queries and keys whose rotated product peaks at a fixed distance."""
    half = c.head_dim // 2
    count = min(_FREQUENCIES, half)
    angles_F = c.rope_theta ** (-jnp.arange(count) / half)
    size = (SHARPNESS * c.head_dim**0.5) ** 0.5
    share = (c.d_model / 2) ** 0.5  # length of the common part after the norm
    key_H = jnp.zeros(c.head_dim).at[:count].set(size)
    queries = []
    for head in range(c.num_heads):
        turn_F = angles_F * OFFSETS[head % len(OFFSETS)]
        query_H = jnp.zeros(c.head_dim).at[:count].set(size * jnp.cos(turn_F))
        queries.append(query_H.at[half : half + count].set(-size * jnp.sin(turn_F)))
    towards_q = jnp.concatenate(queries)
    towards_k = jnp.tile(key_H, c.num_kv_heads)
    wq = 0.3 * weights["wq"] + jnp.outer(common_D, towards_q) / share
    wk = 0.3 * weights["wk"] + jnp.outer(common_D, towards_k) / share
    return {**weights, "wq": wq, "wk": wk}


def _likes(weights: Any, c: DecoderConfig) -> Any:
    """The first query head of each key head equals it."""
    groups = c.num_heads // c.num_kv_heads
    wk_DxKxH = LIKENESS * weights["wk"].reshape(c.d_model, c.num_kv_heads, c.head_dim)
    wq_DxKxGxH = weights["wq"].reshape(c.d_model, c.num_kv_heads, groups, c.head_dim).at[:, :, 0].set(wk_DxKxH)
    return {**weights, "wq": wq_DxKxGxH.reshape(c.d_model, -1), "wk": wk_DxKxH.reshape(c.d_model, -1)}
