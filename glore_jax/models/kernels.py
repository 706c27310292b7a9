"""Attention of whole rows, by backend: blocks on CPUs, cuDNN on GPUs, the splash kernel that ships with jax on TPUs.

XLA's is the reference: it holds the scores of all pairs of tokens. The others hold a block of them at a time. The
kernels say of some models that they cannot compute them; nobody asking for one by name, these are computed by XLA.

Shape suffixes: B rows, T tokens, N query heads, K key heads, G = N / K query heads a key head, H head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.errors import InputError
from glore_jax.models import attention, blocks
from glore_jax.models.execution import Execution
from glore_jax.models.visibility import Visibility

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
BEST = {"cpu": "blocks", "gpu": "cudnn", "tpu": "splash"}  # by platform
NAMES = ("xla", "blocks", "cudnn", "splash")
_LANES, _BLOCK = 128, 512  # the splash kernel reads keys in blocks of a multiple of the former; at most of the latter


def choose(asked: str, platform: str, prefix_lm: bool, cap: float, head_dim: int, dtype: str) -> str:
    """The name of the kernel that computes a model's attention.

    Args:
      asked: one of `NAMES`; "": the best one for the platform that can.
      prefix_lm, cap, head_dim, dtype: of the model, see `DecoderConfig`.

    Raises:
      InputError: the one that is asked for is not there, or cannot.
    """
    cannot = {"xla": "", "blocks": "", "splash": "reads no prefix in both directions" if prefix_lm else ""}
    if cap:
        cannot["cudnn"] = "caps no scores"
    elif dtype not in ("bfloat16", "float16"):
        cannot["cudnn"] = f"computes in bfloat16 and float16, not in {dtype}"
    else:
        cannot["cudnn"] = "has heads of a multiple of 8, at most 128" if head_dim % 8 or head_dim > 128 else ""
    if asked not in ("", *cannot):
        raise InputError(f"attention={asked!r}: no such kernel; there are {', '.join(cannot)}")
    if asked and cannot[asked]:
        raise InputError(f"attention={asked!r}: this kernel {cannot[asked]}; take attention='xla'")
    best = BEST.get(platform, "xla")
    return asked or ("xla" if cannot[best] else best)


def attend(kernel: str, visible: Visibility, window: int, cap: float, execution: Execution) -> Attend:
    """What reads keys and values: `attend(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH) -> [B, T, N, H]`, the queries scaled.

    Args:
      kernel: one of `NAMES`.
      window: how many positions back a token sees, itself included; 0: all.
      cap: of the scores; 0: none.
      execution: how arrays are split, which all but XLA have to know; splash is interpreted where there are no TPUs.
    """
    if kernel == "splash":
        return lambda q, k, v: splash(q, k, v, visible.segments_BxT, window, cap, execution)
    if kernel == "blocks":
        return lambda q, k, v: in_blocks(q, k, v, visible, window, cap, execution)
    mask_BxTxT = visible.mask(window)
    if kernel == "cudnn":
        return lambda q, k, v: cudnn(q, k, v, mask_BxTxT)
    return lambda q, k, v: xla(q, k, v, mask_BxTxT, cap)


def xla(
    q_BxTxNxH: jax.Array, k_BxTxKxH: jax.Array, v_BxTxKxH: jax.Array, mask_BxTxT: jax.Array, cap: float
) -> jax.Array:
    """The reference."""
    keys = {"k": k_BxTxKxH.transpose(0, 2, 3, 1), "v": v_BxTxKxH.transpose(0, 2, 1, 3)}
    return attention.read(q_BxTxNxH, keys, mask_BxTxT, cap)


def cudnn(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    mask_BxTxT: jax.Array,
    implementation: Any = "cudnn",
) -> jax.Array:
    """By cuDNN's flash attention; the mask is one of all pairs, of a row and not of each head.

    Its gradients want an even number of tokens; an odd one is padded, with a token that sees itself.
    """
    odd = mask_BxTxT.shape[1] % 2
    if odd:
        q_BxTxNxH, k_BxTxKxH, v_BxTxKxH = (
            jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q_BxTxNxH, k_BxTxKxH, v_BxTxKxH)
        )
        mask_BxTxT = jnp.pad(mask_BxTxT, ((0, 0), (0, 1), (0, 1))).at[:, -1, -1].set(True)
    mixed = jax.nn.dot_product_attention(
        q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, mask=mask_BxTxT[:, None], scale=1.0, implementation=implementation
    )
    return mixed[:, :-1] if odd else mixed


def splash(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    segments_BxT: jax.Array,
    window: int,
    cap: float,
    execution: Execution,
) -> jax.Array:
    """By splash attention, each device for its own rows and heads. Rows are padded to a multiple of 128 tokens."""
    T = segments_BxT.shape[1]
    more = -T % _LANES
    rows = (0, 0), (0, 0), (0, more), (0, 0)
    q_BxNxTxH, k_BxKxTxH, v_BxKxTxH = (
        jnp.pad(x.transpose(0, 2, 1, 3), rows) for x in (q_BxTxNxH, k_BxTxKxH, v_BxTxKxH)
    )
    segments_BxT = jnp.pad(segments_BxT, ((0, 0), (0, more)), constant_values=-1)

    def one_device(q_BxNxTxH, k_BxKxTxH, v_BxKxTxH, segments_BxT):
        kernel = _splash_kernel(
            q_BxNxTxH.shape[1], segments_BxT.shape[1], window, cap, interpret=execution.platform != "tpu"
        )
        return jax.vmap(kernel)(q_BxNxTxH, k_BxKxTxH, v_BxKxTxH, segments_BxT)

    mixed_BxNxTxH = _each_device(one_device, execution, 1)(q_BxNxTxH, k_BxKxTxH, v_BxKxTxH, segments_BxT)
    return mixed_BxNxTxH[:, :, :T].transpose(0, 2, 1, 3)


def in_blocks(
    q_BxTxNxH: jax.Array,
    k_BxTxKxH: jax.Array,
    v_BxTxKxH: jax.Array,
    visible: Visibility,
    window: int,
    cap: float,
    execution: Execution,
) -> jax.Array:
    """By blocks of queries (`models.blocks`), each device for its own rows and heads."""

    def one_device(q_BxTxNxH: Any, k_BxTxKxH: Any, v_BxTxKxH: Any, visible: Visibility) -> jax.Array:
        return blocks.attend(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, visible, window, cap)

    return _each_device(one_device, execution, 2)(q_BxTxNxH, k_BxTxKxH, v_BxTxKxH, visible)


def _each_device(attend: Callable[..., jax.Array], execution: Execution, heads: int) -> Callable[..., jax.Array]:
    """`attend(q, k, v, what is known of rows)` by each device for its own rows and heads.

    Args:
      heads: which axis theirs is.
    """
    place = execution.place
    if place is None or execution.own_rows:
        return attend
    # A device that had some query heads of all would not know which key heads are theirs.
    names = ("heads", "kv_heads") if place.axes("heads") == place.axes("kv_heads") else (None, None)
    q_at, k_at = (place.at("batch", *[None] * (heads - 1), name).spec for name in names)
    rows_at = place.at("batch").spec
    return jax.shard_map(attend, mesh=place.mesh, in_specs=(q_at, k_at, k_at, rows_at), out_specs=q_at, check_vma=False)


def _splash_kernel(heads: int, tokens: int, window: int, cap: float, interpret: bool) -> Callable[..., jax.Array]:
    """`kernel(q_NxTxH, k_KxTxH, v_KxTxH, segments_T) -> [N, T, H]` of one row."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = tokens, tokens
    mask = masks.LocalMask(shape, (window - 1, 0), 0) if window else masks.CausalMask(shape)
    size = next(size for size in range(min(_BLOCK, tokens), 0, -_LANES) if tokens % size == 0)
    blocks: dict[str, Any] = {f"block_{name}": size for name in ("q", "kv", "q_dkv", "kv_dkv", "q_dq", "kv_dq")}
    kernel: Any = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=kernels.BlockSizes(**blocks),
        attn_logits_soft_cap=cap or None,
        interpret=interpret,
    )
    return lambda q, k, v, segments: kernel(q, k, v, segment_ids=kernels.SegmentIds(segments, segments))
