"""The one transformer: a decoder of the Llama shape, as pure functions over a parameter tree.

Pre-norm (RMSNorm), rotary positions, grouped-query attention, SwiGLU. The model knows nothing of
prompts, slots or packing: callers hand in positions and a mask, and for decoding a cache with the
column to write. Layers are unrolled and each has a cache of its own, because on a CPU a scan over
layers with one stacked cache is about three times slower to decode with.

Shape suffixes: B rows, T tokens, S cache columns, D model, N query heads, K key heads,
G = N / K query heads a key head, H head size, F feed-forward, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Cache = list[dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder. Names follow the Llama family."""

    vocab_size: int
    d_model: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32
    d_ff: int = 384
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    dtype: str = "float32"
    prefix_lm: bool = False  # what a model is given is read in both directions, what it writes causally

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even for rotary positions")


def _weight(axes: tuple[str, ...], fan_in: int) -> Any:
    """Truncated-normal initialiser of variance 1 / fan_in that carries the logical axis names."""
    return nn.with_logical_partitioning(nn.initializers.truncated_normal(fan_in**-0.5), axes)


class RMSNorm(nn.Module):
    eps: float
    dtype: str  # of the result

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        init: Any = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        scale_D = self.param("scale", init, (x_BxTxD.shape[-1],), jnp.float32)
        x = x_BxTxD.astype(jnp.float32)
        variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        normed = x * jax.lax.rsqrt(variance + self.eps)
        return (normed * scale_D[None, None, :]).astype(self.dtype)


def rotate(x_BxTxNxH: jax.Array, positions_BxT: jax.Array, theta: float) -> jax.Array:
    """Rotary position embedding in the half-split layout that Llama checkpoints use."""
    half = x_BxTxNxH.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_BxT.astype(jnp.float32)[:, :, None, None] * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x_BxTxNxH.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return rotated.astype(x_BxTxNxH.dtype)


class Attention(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxTxD, positions_BxT, mask_BxTxS, layer_cache, column):
        c = self.config
        dtype = x_BxTxD.dtype
        wq = self.param("wq", _weight(("embed", "heads"), c.d_model), (c.d_model, c.num_heads * c.head_dim))
        wk = self.param("wk", _weight(("embed", "kv_heads"), c.d_model), (c.d_model, c.num_kv_heads * c.head_dim))
        wv = self.param("wv", _weight(("embed", "kv_heads"), c.d_model), (c.d_model, c.num_kv_heads * c.head_dim))
        fan_out = 2 * c.num_layers * c.num_heads * c.head_dim  # residual branches start small
        wo = self.param("wo", _weight(("heads", "embed"), fan_out), (c.num_heads * c.head_dim, c.d_model))

        B, T, _ = x_BxTxD.shape
        q = (x_BxTxD @ wq.astype(dtype)).reshape(B, T, c.num_heads, c.head_dim)
        k = (x_BxTxD @ wk.astype(dtype)).reshape(B, T, c.num_kv_heads, c.head_dim)
        v = (x_BxTxD @ wv.astype(dtype)).reshape(B, T, c.num_kv_heads, c.head_dim)
        q = rotate(q, positions_BxT, c.rope_theta)
        k_BxKxSxH = rotate(k, positions_BxT, c.rope_theta).transpose(0, 2, 1, 3)
        v_BxKxSxH = v.transpose(0, 2, 1, 3)
        if layer_cache is not None:
            zero = jnp.zeros((), jnp.int32)
            start = (zero, zero, column, zero)
            k_BxKxSxH = jax.lax.dynamic_update_slice(layer_cache["k"], k_BxKxSxH.astype(layer_cache["k"].dtype), start)
            v_BxKxSxH = jax.lax.dynamic_update_slice(layer_cache["v"], v_BxKxSxH.astype(layer_cache["v"].dtype), start)
            layer_cache = {"k": k_BxKxSxH, "v": v_BxKxSxH}

        group = c.num_heads // c.num_kv_heads
        q_BxKxGxTxH = q.reshape(B, T, c.num_kv_heads, group, c.head_dim).transpose(0, 2, 3, 1, 4)
        q_BxKxGTxH = q_BxKxGxTxH.reshape(B, c.num_kv_heads, group * T, c.head_dim)
        scores = jnp.einsum("bkth,bksh->bkts", q_BxKxGTxH * c.head_dim**-0.5, k_BxKxSxH.astype(dtype))
        scores = scores.reshape(B, c.num_kv_heads, group, T, -1).astype(jnp.float32)
        scores = jnp.where(mask_BxTxS[:, None, None, :, :], scores, -1e9)
        weights = jax.nn.softmax(scores, axis=-1).astype(dtype).reshape(B, c.num_kv_heads, group * T, -1)
        mixed = jnp.einsum("bkts,bksh->bkth", weights, v_BxKxSxH.astype(dtype))
        mixed = mixed.reshape(B, c.num_kv_heads, group, T, c.head_dim).transpose(0, 3, 1, 2, 4)
        return mixed.reshape(B, T, c.num_heads * c.head_dim) @ wo.astype(dtype), layer_cache


class FeedForward(nn.Module):
    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        c = self.config
        dtype = x_BxTxD.dtype
        gate = self.param("gate", _weight(("embed", "mlp"), c.d_model), (c.d_model, c.d_ff))
        up = self.param("up", _weight(("embed", "mlp"), c.d_model), (c.d_model, c.d_ff))
        down = self.param("down", _weight(("mlp", "embed"), 2 * c.num_layers * c.d_ff), (c.d_ff, c.d_model))
        return (nn.silu(x_BxTxD @ gate.astype(dtype)) * (x_BxTxD @ up.astype(dtype))) @ down.astype(dtype)


class Decoder(nn.Module):
    """`apply({"params": params}, tokens_BxT, positions_BxT, mask_BxTxS, cache, column)`.

    Returns the final hidden states [B, T, D] and the updated cache (None without one). Heads
    (`logits`, `models.value_head`) are applied to the positions that need them.
    """

    config: DecoderConfig

    def setup(self):
        c = self.config
        init: Any = nn.with_logical_partitioning(nn.initializers.normal(c.d_model**-0.5), ("vocab", "embed"))
        self.embedding: Any = self.param("embedding", init, (c.vocab_size, c.d_model))
        self.unembedding: Any = self.param("unembedding", init, (c.vocab_size, c.d_model))
        self.attention_norm = [RMSNorm(c.norm_eps, c.dtype) for _ in range(c.num_layers)]
        self.attention = [Attention(c) for _ in range(c.num_layers)]
        self.mlp_norm = [RMSNorm(c.norm_eps, c.dtype) for _ in range(c.num_layers)]
        self.mlp = [FeedForward(c) for _ in range(c.num_layers)]
        self.final_norm = RMSNorm(c.norm_eps, c.dtype)

    def __call__(
        self,
        tokens_BxT: jax.Array,
        positions_BxT: jax.Array,
        mask_BxTxS: jax.Array,
        cache: Cache | None = None,
        column: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        # The residual stream stays float32: in bfloat16 small branches are rounded away, and learning takes longer.
        x = jnp.take(self.embedding, tokens_BxT, axis=0)
        new_cache: list[Any] = []
        for i in range(self.config.num_layers):
            layer_cache = None if cache is None else cache[i]
            mixed, layer_cache = self.attention[i](
                self.attention_norm[i](x), positions_BxT, mask_BxTxS, layer_cache, column
            )
            x = x + mixed.astype(jnp.float32)
            x = x + self.mlp[i](self.mlp_norm[i](x)).astype(jnp.float32)
            new_cache.append(layer_cache)
        return self.final_norm(x), (None if cache is None else new_cache)


def init(model: Decoder, key: jax.Array) -> Any:
    """Random parameters as plain arrays, without their axis names."""
    tokens = jnp.zeros((1, 8), jnp.int32)
    return nn.meta.unbox(model.init(key, tokens, tokens, jnp.ones((1, 8, 8), bool))["params"])


def logits(params: Any, hidden: jax.Array) -> jax.Array:
    """Next-token logits [..., V] in float32 of hidden states [..., D]."""
    return (hidden @ params["unembedding"].astype(hidden.dtype).T).astype(jnp.float32)


def causal_mask(segments_BxT: jax.Array, prefix_BxT: jax.Array | None = None) -> jax.Array:
    """Attention mask [B, T, T] of packed rows: causal within a segment, none across.

    Segment 0 is padding. Where `prefix_BxT` is true a position is also seen by every earlier
    position of its own prefix: the bidirectional source of a prefix language model.

    >>> causal_mask(jnp.array([[1, 1, 2, 0]]))[0].astype(int)
    Array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 0],
           [0, 0, 0, 1]], dtype=int32)
    """
    T = segments_BxT.shape[1]
    same = segments_BxT[:, :, None] == segments_BxT[:, None, :]
    seen = jnp.tril(jnp.ones((T, T), bool))[None]
    if prefix_BxT is not None:
        seen = seen | (prefix_BxT[:, :, None] & prefix_BxT[:, None, :])
    return same & seen
