"""The one transformer: a decoder as pure functions over a parameter tree; the families differ by configuration.

Pre-norm (RMSNorm), rotary positions, grouped-query attention, a gated feed-forward: the Llama shape. What Mistral,
Qwen and Gemma add to it (windows, biases, norms of queries and keys, soft caps, ...) is a field of `DecoderConfig`
each, and costs nothing where it is off. `models.families` has the fields of each family.

The model knows nothing of prompts, slots or packing: callers hand in positions and which tokens see which, and for
decoding a cache with the column to write. Layers are unrolled and each has a cache of its own, because on a CPU a scan
over layers with one stacked cache is about three times slower to decode with.

Shape suffixes: B rows, T tokens, S cache columns, D model, N query heads, K key heads,
G = N / K query heads a key head, H head size, F feed-forward, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from glore_jax.models import attention, kernels, products, quantised, rotary
from glore_jax.models.attention import soft_cap
from glore_jax.models.execution import Execution
from glore_jax.models.kernels import Attend
from glore_jax.models.products import product
from glore_jax.models.rotary import rotate
from glore_jax.models.visibility import Visibility

Cache = list[dict[str, jax.Array]]
ACTIVATIONS = {"silu": nn.silu, "gelu_tanh": lambda x: nn.gelu(x, approximate=True)}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and traits of a decoder. Sizes are named as in the Llama family.

    Attributes:
      norm_eps: added to the variance in every RMSNorm.
      dtype: in which layers compute; norms, scores and the residual stream stay float32.
      prefix_lm: what a model is given is read in both directions, what it writes causally.
      max_positions: longest sequence the model was made for, as exports say it; 0 where nobody said. Not enforced.
      rope_theta: base of the rotary frequencies.
      rope_factor: slows the rotary frequencies by this factor, to reach longer contexts (linear scaling).
      rope_original: if not 0, `rope_factor` is for slow frequencies alone (Llama 3.1): those with fewer than
        `rope_low` turns in `rope_original` positions take it, those with more than `rope_high` turns do not, and
        between the two it fades in.
      local_rope_theta: base of the rotary frequencies, unscaled, of layers with a window; 0: as the others.
      layer_windows: for each layer how many positions back a token sees, itself included; 0: all. Empty: all layers 0.
      qkv_bias: queries, keys and values have biases.
      qk_norm: RMSNorm of each query and key head, before the rotation.
      query_pre_attn_scalar: scores are divided by its square root; 0: by that of `head_dim`.
      attention_soft_cap, logit_soft_cap: squash scores and logits to within this bound by tanh; 0: no bound.
      post_norms: RMSNorm of what attention and feed-forward give to the residual stream too.
      unit_offset_norm: RMSNorm multiplies by 1 + scale, so that a scale of 0 does nothing.
      scale_embedding: embeddings are multiplied by the square root of `d_model`, rounded to `dtype`.
      tied_embedding: the embedding is the unembedding too.
      activation: of the feed-forward's gate: `silu` or `gelu_tanh`.
    """

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
    prefix_lm: bool = False
    max_positions: int = 0
    rope_factor: float = 1.0
    rope_original: int = 0
    rope_low: float = 1.0
    rope_high: float = 4.0
    local_rope_theta: float = 0.0
    layer_windows: tuple[int, ...] = ()
    qkv_bias: bool = False
    qk_norm: bool = False
    query_pre_attn_scalar: float = 0.0
    attention_soft_cap: float = 0.0
    logit_soft_cap: float = 0.0
    post_norms: bool = False
    unit_offset_norm: bool = False
    scale_embedding: bool = False
    tied_embedding: bool = False
    activation: str = "silu"

    def __post_init__(self):
        # JSON knows lists only; a configuration is a static argument, so it must be hashable.
        object.__setattr__(self, "layer_windows", tuple(self.layer_windows))
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even for rotary positions")
        if self.layer_windows and len(self.layer_windows) != self.num_layers:
            raise ValueError(f"layer_windows has {len(self.layer_windows)} entries for num_layers={self.num_layers}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is none of {sorted(ACTIVATIONS)}")

    @property
    def units(self) -> dict[str, int]:
        """How many parts each logical axis can be split into at most; a head is never cut."""
        sizes = {"vocab": self.vocab_size, "embed": self.d_model, "mlp": self.d_ff}
        return sizes | {"heads": self.num_heads, "kv_heads": self.num_kv_heads}

    def window(self, layer: int) -> int:
        """How many positions back a layer sees; 0: all."""
        return self.layer_windows[layer] if self.layer_windows else 0


def _weight(axes: tuple[str, ...], fan_in: int) -> Any:
    """Truncated-normal initialiser of variance 1 / fan_in that carries the logical axis names."""
    return nn.with_logical_partitioning(nn.initializers.truncated_normal(fan_in**-0.5), axes)


class RMSNorm(nn.Module):
    """Of the last axis: [..., D], or [..., H] where it is one of heads."""

    eps: float
    dtype: str  # of the result
    unit_offset: bool = False  # multiply by 1 + scale

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start = nn.initializers.zeros_init() if self.unit_offset else nn.initializers.ones_init()
        init: Any = nn.with_logical_partitioning(start, ("norm",))
        scale_D: Any = self.param("scale", init, (x.shape[-1],), jnp.float32)
        scale_D = scale_D.astype(jnp.float32)
        if self.unit_offset:
            scale_D = 1.0 + scale_D
        x = x.astype(jnp.float32)
        variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        normed = x * jax.lax.rsqrt(variance + self.eps)
        return (normed * scale_D[(None,) * (x.ndim - 1)]).astype(self.dtype)


def _norm(c: DecoderConfig, name: str | None = None) -> RMSNorm:
    return RMSNorm(c.norm_eps, c.dtype, c.unit_offset_norm, name=name)


class Attention(nn.Module):
    config: DecoderConfig
    local: bool = False  # one of the layers that turn by `local_rope_theta`
    flat: bool = False  # see `product`

    @nn.compact
    def __call__(self, x_BxTxD, positions_BxT, read: Attend | jax.Array, layer_cache, column):
        """`read` is what attends to the keys of these tokens, or a mask [B, T, S] of those of the cache."""
        c = self.config
        dtype = x_BxTxD.dtype
        wq = self.param("wq", _weight(("embed", "heads"), c.d_model), (c.d_model, c.num_heads * c.head_dim))
        wk = self.param("wk", _weight(("embed", "kv_heads"), c.d_model), (c.d_model, c.num_kv_heads * c.head_dim))
        wv = self.param("wv", _weight(("embed", "kv_heads"), c.d_model), (c.d_model, c.num_kv_heads * c.head_dim))
        fan_out = 2 * c.num_layers * c.num_heads * c.head_dim  # residual branches start small
        wo = self.param("wo", _weight(("heads", "embed"), fan_out), (c.num_heads * c.head_dim, c.d_model))

        B, T, _ = x_BxTxD.shape
        q = product(x_BxTxD, wq.astype(dtype), self.flat).reshape(B, T, c.num_heads, c.head_dim)
        k = product(x_BxTxD, wk.astype(dtype), self.flat).reshape(B, T, c.num_kv_heads, c.head_dim)
        v = product(x_BxTxD, wv.astype(dtype), self.flat).reshape(B, T, c.num_kv_heads, c.head_dim)
        if c.qkv_bias:
            q, k, v = q + self._bias("bq", q), k + self._bias("bk", k), v + self._bias("bv", v)
        if c.qk_norm:
            q, k = _norm(c, "q_norm")(q), _norm(c, "k_norm")(k)
        scale = (c.query_pre_attn_scalar or c.head_dim) ** -0.5
        q, k = self._rotate(q, positions_BxT) * scale, self._rotate(k, positions_BxT)
        keys = {"k": k.transpose(0, 2, 3, 1), "v": v.transpose(0, 2, 1, 3)}
        if layer_cache is not None:
            keys = layer_cache = attention.write(layer_cache, keys, column)
        mixed = read(q, k, v) if callable(read) else attention.read(q, keys, read, c.attention_soft_cap)
        return product(mixed.reshape(B, T, c.num_heads * c.head_dim), wo.astype(dtype), self.flat), layer_cache

    def _bias(self, name: str, x_BxTxNxH: jax.Array) -> jax.Array:
        """A bias of its own for each axis of each head, in the shape of what it is added to."""
        heads, size = x_BxTxNxH.shape[2:]
        axis = "heads" if name == "bq" else "kv_heads"
        init: Any = nn.with_logical_partitioning(nn.initializers.zeros_init(), (axis,))
        bias: Any = self.param(name, init, (heads * size,))
        return bias.astype(x_BxTxNxH.dtype).reshape(1, 1, heads, size)

    def _rotate(self, x_BxTxNxH: jax.Array, positions_BxT: jax.Array) -> jax.Array:
        c = self.config
        if self.local:
            return rotate(x_BxTxNxH, positions_BxT, c.local_rope_theta)
        scaling = rotary.slowed(c.rope_factor, c.rope_original, c.rope_low, c.rope_high)
        return rotate(x_BxTxNxH, positions_BxT, c.rope_theta, scaling)


class FeedForward(nn.Module):
    config: DecoderConfig
    flat: bool = False  # see `product`

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        c = self.config
        dtype = x_BxTxD.dtype
        gate = self.param("gate", _weight(("embed", "mlp"), c.d_model), (c.d_model, c.d_ff))
        up = self.param("up", _weight(("embed", "mlp"), c.d_model), (c.d_model, c.d_ff))
        down = self.param("down", _weight(("mlp", "embed"), 2 * c.num_layers * c.d_ff), (c.d_ff, c.d_model))
        activation = ACTIVATIONS[c.activation]
        gated = activation(product(x_BxTxD, gate.astype(dtype), self.flat))
        return product(gated * product(x_BxTxD, up.astype(dtype), self.flat), down.astype(dtype), self.flat)


class Layers(nn.Module):
    """The layers alone, one after the other.

    Attributes:
      execution: how they are computed.
    """

    config: DecoderConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        layers = range(c.num_layers)
        self.attention_norm = [_norm(c) for _ in layers]
        flat = self.execution.flat
        self.attention = [Attention(c, bool(c.window(i) and c.local_rope_theta), flat) for i in layers]
        self.mlp_norm = [_norm(c) for _ in layers]
        self.mlp = [FeedForward(c, flat) for _ in layers]
        if c.post_norms:
            self.post_attention_norm = [_norm(c) for _ in layers]
            self.post_mlp_norm = [_norm(c) for _ in layers]

    def __call__(
        self,
        x_BxTxD: jax.Array,
        positions_BxT: jax.Array,
        reads: Mapping[int, Attend | jax.Array],
        cache: Cache | None = None,
        column: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """The residual stream behind the layers, and their cache. `reads` has what reads keys by each window."""
        c, x = self.config, self.execution.rows(x_BxTxD)
        new_cache: list[Any] = []
        for i in range(c.num_layers):
            layer_cache = None if cache is None else cache[i]
            mixed, layer_cache = self.attention[i](
                self.attention_norm[i](x), positions_BxT, reads[c.window(i)], layer_cache, column
            )
            x = x + (self.post_attention_norm[i](mixed) if c.post_norms else mixed).astype(jnp.float32)
            fed = self.mlp[i](self.mlp_norm[i](x))
            x = x + (self.post_mlp_norm[i](fed) if c.post_norms else fed).astype(jnp.float32)
            x = self.execution.rows(x)
            new_cache.append(layer_cache)
        return x, (None if cache is None else new_cache)


class Decoder(Layers):
    """`apply({"params": params}, tokens_BxT, positions_BxT, visible, cache, column, key_positions_BxS)`.

    Returns the final hidden states [B, T, D] and the updated cache (None without one). Heads
    (`logits`, `models.value_head`) are applied to the positions that need them.

    What is `visible` is a `Visibility` where the rows are whole, the cache, if there is one, being filled from its
    first column on; or a mask [B, T, S] of the cache's columns, or of the tokens themselves.

    Key positions say at which position each cache column stands, for masks and layers with a window. They may be left
    out without a cache.
    """

    def setup(self):
        c = self.config
        init: Any = nn.with_logical_partitioning(nn.initializers.normal(c.d_model**-0.5), ("vocab", "embed"))
        self.embedding: Any = self.param("embedding", init, (c.vocab_size, c.d_model))
        if not c.tied_embedding:
            self.unembedding: Any = self.param("unembedding", init, (c.vocab_size, c.d_model))
        super().setup()
        self.final_norm = _norm(c)

    def __call__(
        self,
        tokens_BxT: jax.Array,
        positions_BxT: jax.Array,
        visible: jax.Array | Visibility,
        cache: Cache | None = None,
        column: jax.Array | None = None,
        key_positions_BxS: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        c = self.config
        if isinstance(visible, Visibility):
            reads, column = readers(c, self.execution, visible), jnp.zeros((), jnp.int32)
        else:
            reads = _windowed(c, visible, positions_BxT, positions_BxT if cache is None else key_positions_BxS)
        embedded_BxTxD = quantised.rows(self.execution.table(self.embedding), tokens_BxT)
        x, cache = super().__call__(stream(c, embedded_BxTxD), positions_BxT, reads, cache, column)
        return self.final_norm(x), cache


class CausalLM(nn.Module):
    """Logits as a plain call: `CausalLM(decoder).apply({"params": params}, tokens_BxT) -> logits_BxTxV` in float32.

    The parameters are the decoder's own. Each row is one sequence from position 0 on, read causally, so padding at
    its end changes nothing before it. `model.decoder` is what samplers and losses take.
    """

    decoder: Decoder

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array) -> jax.Array:
        nn.share_scope(self, self.decoder)
        hidden_BxTxD = read(self.decoder, tokens_BxT)
        params = nn.meta.unbox(self.decoder.variables["params"])
        return logits(params, hidden_BxTxD, self.decoder)


def read(model: Decoder, tokens_BxT: jax.Array) -> jax.Array:
    """Hidden states [B, T, D] of whole sequences, one a row, read causally; inside `apply` of a module around it.

    Raises:
      ValueError: a prefix LM, which has to know what of a sequence it was given.
    """
    if model.config.prefix_lm:
        raise ValueError("a model with prefix_lm cannot be called on tokens alone; call its decoder")
    positions_BxT = jnp.broadcast_to(jnp.arange(tokens_BxT.shape[1], dtype=jnp.int32)[None, :], tokens_BxT.shape)
    return model(tokens_BxT, positions_BxT, Visibility(jnp.ones_like(tokens_BxT)))[0]


def init(model: Decoder, key: jax.Array) -> Any:
    """Random parameters as plain arrays, without their axis names."""
    return nn.meta.unbox(_init(model, key))


def shapes(model: Decoder) -> Any:
    """Shapes of the parameters with their axis names, by which they are laid on devices; none is made."""
    return _shapes(dataclasses.replace(model.config, dtype="float32", prefix_lm=False))  # which changes none of them


@functools.lru_cache(maxsize=8)
def _shapes(config: DecoderConfig) -> Any:
    """Of a deep model it takes seconds to say them."""
    return jax.eval_shape(functools.partial(_init, Decoder(config)), jax.random.key(0))


def _init(model: Decoder, key: jax.Array) -> Any:
    tokens, plain = jnp.zeros((1, 8), jnp.int32), Decoder(model.config, Execution(attention="xla"))
    return plain.init(key, tokens, tokens, Visibility(tokens))["params"]


def stream(c: DecoderConfig, embedded_BxTxD: jax.Array) -> jax.Array:
    """The residual stream in front of the first layer.

    It stays float32: in bfloat16 small branches are rounded away, and learning takes longer.
    """
    x = embedded_BxTxD.astype(jnp.float32)
    return x * jnp.asarray(c.d_model**0.5, c.dtype).astype(jnp.float32) if c.scale_embedding else x


def final_norm(c: DecoderConfig, params: Any, x_BxTxD: jax.Array) -> jax.Array:
    """Hidden states of the residual stream behind the last layer."""
    hidden_BxTxD: Any = _norm(c).apply({"params": params["final_norm"]}, x_BxTxD)
    return hidden_BxTxD


def readers(c: DecoderConfig, execution: Execution, visible: Visibility) -> dict[int, Attend]:
    """What reads the keys of whole rows, for each window that layers have."""
    cap, e = c.attention_soft_cap, execution
    kernel = kernels.choose(e.attention, e.platform, c.prefix_lm, cap, c.head_dim, c.dtype)
    windows = sorted({c.window(i) for i in range(c.num_layers)})
    return {window: kernels.attend(kernel, visible, window, cap, e) for window in windows}


def logits(params: Any, hidden: jax.Array, model: Any = None, flat: bool = False) -> jax.Array:
    """Next-token logits [..., V] in float32 of hidden states [..., D].

    Args:
      params: of the decoder; one with a tied embedding has no unembedding.
      model: what made the hidden states; a `Decoder` has a `logit_soft_cap`, anything else has none.
      flat: whether these are a matrix [P, D] of a training on a CPU; see `models.products`.
    """
    cap = model.config.logit_soft_cap if isinstance(model, Decoder) else 0.0
    unembedding_VxD = params["unembedding"] if "unembedding" in params else params["embedding"]
    table_VxD = unembedding_VxD.astype(hidden.dtype)
    return soft_cap((products.with_rows(hidden, table_VxD) if flat else hidden @ table_VxD.T).astype(jnp.float32), cap)


def _windowed(
    c: DecoderConfig, mask_BxTxS: jax.Array, positions_BxT: jax.Array, key_positions_BxS: jax.Array | None
) -> dict[int, jax.Array]:
    """The mask for each window that layers have; 0 is the mask as it is.

    A window counts positions, not columns, and to both sides: a prefix LM looks ahead no further than back.
    """
    masks = {0: mask_BxTxS}
    for window in set(c.layer_windows) - {0}:
        if key_positions_BxS is None:
            raise ValueError("a decoder with layer_windows needs the key positions of its cache")
        apart_BxTxS = jnp.abs(positions_BxT[:, :, None] - key_positions_BxS[:, None, :])
        masks[window] = mask_BxTxS & (apart_BxTxS < window)
    return masks
