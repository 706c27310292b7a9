"""The jitted parts of sampling: prefill, insertion of requests into slots, a chunk of decoding steps."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from glore_jax.models import decoder
from glore_jax.sampling import kv_cache


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Everything that is compiled in; all other settings are traced.

    Attributes:
      slots: B, rows that decode together.
      sources: P, sources prefilled together.
      prefix_columns: longest source of the bucket.
      ring: most new tokens a request can have.
      chunk: decoding steps between two looks of the host.
      eos, pad: token ids.
    """

    slots: int
    sources: int
    prefix_columns: int
    ring: int
    chunk: int
    eos: int
    pad: int


class Slots(flax.struct.PyTreeNode):
    """State of the decoding slots.

    Attributes:
      cache: see `kv_cache`.
      step: decoding steps since the engine began (scalar).
      token_B: the token that each slot reads next.
      prefix_B: columns of the prefix that the slot sees.
      start_B: step at which the slot began.
      limit_B: new tokens that the slot may write.
      active_B: whether the slot still writes.
      temperature_B: 0 is greedy.
      name_Bx2: hash of the request id, two words.
      written_BxR: new tokens so far, padded.
      logprob_B: sum of log-probabilities of the new tokens under the untempered model.
    """

    cache: Any
    step: jax.Array
    token_B: jax.Array
    prefix_B: jax.Array
    start_B: jax.Array
    limit_B: jax.Array
    active_B: jax.Array
    temperature_B: jax.Array
    name_Bx2: jax.Array
    written_BxR: jax.Array
    logprob_B: jax.Array


def empty(config: decoder.DecoderConfig, shapes: Shapes) -> Slots:
    """Slots that hold nothing. Each array is one of its own, because all of them are donated later."""
    B = shapes.slots

    def integers() -> jax.Array:
        return jnp.zeros((B,), jnp.int32)

    return Slots(
        cache=kv_cache.zeros(config, B, shapes.prefix_columns + shapes.ring),
        step=jnp.zeros((), jnp.int32),
        token_B=integers(),
        prefix_B=integers(),
        start_B=integers(),
        limit_B=integers(),
        active_B=jnp.zeros((B,), bool),
        temperature_B=jnp.zeros((B,), jnp.float32),
        name_Bx2=jnp.zeros((B, 2), jnp.uint32),
        written_BxR=jnp.full((B, shapes.ring), shapes.pad, jnp.int32),
        logprob_B=jnp.zeros((B,), jnp.float32),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def prefill(
    model: decoder.Decoder, shapes: Shapes, params: Any, tokens_PxS: jax.Array, length_P: jax.Array, prompt_P: jax.Array
) -> Any:
    """Keys and values of padded sources.

    Args:
      tokens_PxS: [P, prefix columns].
      length_P: tokens of each source.
      prompt_P: how many of them were given; a prefix LM reads all of these but the last in both directions.
    """
    P, S = tokens_PxS.shape
    positions = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32)[None, :], (P, S))
    inside = positions < length_P[:, None]
    both_ways = positions < prompt_P[:, None] - 1 if model.config.prefix_lm else None
    mask = decoder.causal_mask(inside.astype(jnp.int32), both_ways)
    cache = kv_cache.zeros(model.config, P, S)
    _, cache = model.apply({"params": params}, tokens_PxS, positions, mask, cache, jnp.zeros((), jnp.int32), positions)
    return cache


@functools.partial(jax.jit, donate_argnums=0)
def insert(slots: Slots, prefilled: Any, request: dict[str, jax.Array]) -> Slots:
    """Gives requests to slots.

    Args:
      prefilled: of `prefill`.
      request: per slot [B]: `fill` (bool, whether the slot takes a request), `source`, `prefix`,
        `token` (the last token of the prompt, which the first decoding step reads), `limit`,
        `temperature` and `name` [B, 2].
    """
    fill = request["fill"]

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(fill.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

    return slots.replace(
        cache=kv_cache.insert(slots.cache, prefilled, request["source"], fill),
        token_B=choose(request["token"], slots.token_B),
        prefix_B=choose(request["prefix"], slots.prefix_B),
        start_B=choose(jnp.broadcast_to(slots.step, fill.shape), slots.start_B),
        limit_B=choose(request["limit"], slots.limit_B),
        active_B=slots.active_B | fill,
        temperature_B=choose(request["temperature"], slots.temperature_B),
        name_Bx2=choose(request["name"], slots.name_Bx2),
        written_BxR=choose(jnp.zeros_like(slots.written_BxR), slots.written_BxR),
        logprob_B=choose(jnp.zeros_like(slots.logprob_B), slots.logprob_B),
    )


def draw(logits_BxV: jax.Array, uniform_B: jax.Array, temperature_B: jax.Array) -> jax.Array:
    """One token a row: the argmax at temperature 0, else by inverting the distribution function at a uniform."""
    greedy_B = jnp.argmax(logits_BxV, axis=-1)
    scale_B = jnp.where(temperature_B > 0, temperature_B, 1.0)
    shifted = logits_BxV - jnp.max(logits_BxV, axis=-1, keepdims=True)
    cumulative_BxV = jnp.cumsum(jnp.exp(shifted / scale_B[:, None]), axis=-1)
    sampled_B = jnp.sum(cumulative_BxV <= uniform_B[:, None] * cumulative_BxV[:, -1:], axis=-1)
    sampled_B = jnp.minimum(sampled_B, logits_BxV.shape[-1] - 1)
    return jnp.where(temperature_B > 0, sampled_B, greedy_B).astype(jnp.int32)


def uniforms(key: jax.Array, name_Bx2: jax.Array, position_B: jax.Array) -> jax.Array:
    """One uniform a row, named by request and token position, so the same in any batch."""

    def one(name_2: jax.Array, position: jax.Array) -> jax.Array:
        named = jax.random.fold_in(jax.random.fold_in(key, name_2[0]), name_2[1])
        return jax.random.uniform(jax.random.fold_in(named, position))

    return jax.vmap(one)(name_Bx2, position_B)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def decode_chunk(model: decoder.Decoder, shapes: Shapes, params: Any, slots: Slots, key: jax.Array) -> Slots:
    """`shapes.chunk` decoding steps of all slots."""

    def one(_: jax.Array, s: Slots) -> Slots:
        count_B = s.step - s.start_B
        column = shapes.prefix_columns + s.step % shapes.ring
        where = s.prefix_B, s.start_B, s.step, shapes.prefix_columns, shapes.ring
        read = s.token_B[:, None], (s.prefix_B + count_B)[:, None], kv_cache.visible(*where)[:, None]
        hidden, cache = model.apply({"params": params}, *read, s.cache, column, kv_cache.positions(*where))
        logits_BxV = decoder.logits(params, hidden[:, 0], model)
        token_B = draw(logits_BxV, uniforms(key, s.name_Bx2, count_B), s.temperature_B)
        hit_BxV = token_B[:, None] == jnp.arange(logits_BxV.shape[1])[None, :]
        chosen_B = jnp.sum(jnp.where(hit_BxV, logits_BxV, 0.0), axis=-1) - jax.nn.logsumexp(logits_BxV, axis=-1)
        here_BxR = (jnp.arange(shapes.ring)[None, :] == count_B[:, None]) & s.active_B[:, None]
        return s.replace(
            cache=cache,
            step=s.step + 1,
            token_B=token_B,
            active_B=s.active_B & (token_B != shapes.eos) & (count_B + 1 < s.limit_B),
            written_BxR=jnp.where(here_BxR, token_B[:, None], s.written_BxR),
            logprob_B=s.logprob_B + jnp.where(s.active_B, chosen_B, 0.0),
        )

    return jax.lax.fori_loop(0, shapes.chunk, one, slots)
