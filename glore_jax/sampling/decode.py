"""The jitted parts of sampling: prefill, sources to groups, requests to slots, a chunk of decoding steps."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from glore_jax.models import decoder
from glore_jax.models.visibility import Visibility
from glore_jax.parallel.placement import Placement
from glore_jax.sampling import draws, kv_cache


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Everything that is compiled in; all other settings are traced.

    Attributes:
      slots: B, rows that decode together.
      width: slots of a group, which continue one source; see `kv_cache`.
      sources: P, sources prefilled together.
      prefix_columns: longest source of the bucket.
      ring: most new tokens a request can have.
      chunk: decoding steps between two looks of the host.
      eos, pad: token ids.
      cache: of which kind the cache is; see `kv_cache.zeros`.
    """

    slots: int
    width: int
    sources: int
    prefix_columns: int
    ring: int
    chunk: int
    eos: int
    pad: int
    cache: str = "same"


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
      top_k_B, top_p_B: see `draws.draw`.
      name_Bx2: hash of the request id, two words.
      written_BxR: new tokens so far, padded.
      logprob_BxR: their log-probabilities under the untempered model, nats.
    """

    cache: Any
    step: jax.Array
    token_B: jax.Array
    prefix_B: jax.Array
    start_B: jax.Array
    limit_B: jax.Array
    active_B: jax.Array
    temperature_B: jax.Array
    top_k_B: jax.Array
    top_p_B: jax.Array
    name_Bx2: jax.Array
    written_BxR: jax.Array
    logprob_BxR: jax.Array


def empty(config: decoder.DecoderConfig, shapes: Shapes) -> Slots:
    """Slots that hold nothing. Each array is one of its own, because all of them are donated later."""
    B = shapes.slots

    def integers() -> jax.Array:
        return jnp.zeros((B,), jnp.int32)

    return Slots(
        cache=kv_cache.of_slots(config, B, shapes.width, shapes.prefix_columns, shapes.ring, shapes.cache),
        step=jnp.zeros((), jnp.int32),
        token_B=integers(),
        prefix_B=integers(),
        start_B=integers(),
        limit_B=integers(),
        active_B=jnp.zeros((B,), bool),
        temperature_B=jnp.zeros((B,), jnp.float32),
        top_k_B=integers(),
        top_p_B=jnp.ones((B,), jnp.float32),
        name_Bx2=jnp.zeros((B, 2), jnp.uint32),
        written_BxR=jnp.full((B, shapes.ring), shapes.pad, jnp.int32),
        logprob_BxR=jnp.zeros((B, shapes.ring), jnp.float32),
    )


def shardings(slots: Slots, place: Placement) -> Slots:
    """Where slots lie: keys and values by slot (or group) and head, all else by slot."""
    at = jax.tree.map(lambda x: place.at("batch") if x.ndim else place.whole, slots)
    return at.replace(cache=jax.tree.map(lambda x: place.at("batch", "kv_heads"), slots.cache))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def prefill(
    model: decoder.Decoder,
    columns: int,
    kind: str,
    params: Any,
    tokens_PxS: jax.Array,
    length_P: jax.Array,
    prompt_P: jax.Array,
) -> Any:
    """Keys and values of padded sources, whatever slots will continue them.

    Args:
      columns, kind: of the cache that they are given in, see `kv_cache.zeros`.
      tokens_PxS: of as many columns as the longest of them takes, or more.
      length_P: tokens of each source.
      prompt_P: how many of them were given; a prefix LM reads all of these but the last in both directions.
    """
    P, S = tokens_PxS.shape
    positions = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32)[None, :], (P, S))
    inside = positions < length_P[:, None]
    both_ways = positions < prompt_P[:, None] - 1 if model.config.prefix_lm else None
    visible = Visibility(inside.astype(jnp.int32), both_ways)
    cache = kv_cache.zeros(model.config, P, columns, kind)
    _, cache = model.apply({"params": params}, tokens_PxS, positions, visible, cache)
    return cache


@functools.partial(jax.jit, donate_argnums=0)
def bind(slots: Slots, prefilled: Any, source_N: jax.Array, fill_N: jax.Array) -> Slots:
    """Gives prefilled sources, of `prefill`, to some groups; see `kv_cache.insert`."""
    return slots.replace(cache=kv_cache.insert(slots.cache, prefilled, source_N, fill_N))


@functools.partial(jax.jit, donate_argnums=0)
def insert(slots: Slots, request: dict[str, jax.Array]) -> Slots:
    """Gives requests to slots.

    Args:
      request: per slot [B]: `fill` (bool, whether the slot takes a request), `prefix`, `token` (the last token of the
        prompt, which the first decoding step reads), `limit`, `temperature`, `top_k`, `top_p` and `name` [B, 2].
    """
    fill = request["fill"]

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(fill.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

    return slots.replace(
        token_B=choose(request["token"], slots.token_B),
        prefix_B=choose(request["prefix"], slots.prefix_B),
        start_B=choose(jnp.broadcast_to(slots.step, fill.shape), slots.start_B),
        limit_B=choose(request["limit"], slots.limit_B),
        active_B=slots.active_B | fill,
        temperature_B=choose(request["temperature"], slots.temperature_B),
        top_k_B=choose(request["top_k"], slots.top_k_B),
        top_p_B=choose(request["top_p"], slots.top_p_B),
        name_Bx2=choose(request["name"], slots.name_Bx2),
        written_BxR=choose(jnp.zeros_like(slots.written_BxR), slots.written_BxR),
        logprob_BxR=choose(jnp.zeros_like(slots.logprob_BxR), slots.logprob_BxR),
    )


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def decode_chunk(model: decoder.Decoder, shapes: Shapes, params: Any, slots: Slots, key: jax.Array) -> Slots:
    """`shapes.chunk` decoding steps of all slots."""

    def one(_: jax.Array, s: Slots) -> Slots:
        count_B = s.step - s.start_B
        where = s.prefix_B, s.start_B, s.step, shapes.prefix_columns, shapes.ring
        read = s.token_B[:, None], (s.prefix_B + count_B)[:, None], kv_cache.visible(*where)[:, None]
        column, positions = s.step % shapes.ring, kv_cache.positions(*where)
        hidden, cache = model.apply({"params": params}, *read, s.cache, column, positions)
        logits_BxV = decoder.logits(params, hidden[:, 0], model)
        uniform_B = draws.uniforms(key, s.name_Bx2, count_B)
        token_B = draws.draw(logits_BxV, uniform_B, s.temperature_B, s.top_k_B, s.top_p_B)
        hit_BxV = token_B[:, None] == jnp.arange(logits_BxV.shape[1])[None, :]
        chosen_B = jnp.sum(jnp.where(hit_BxV, logits_BxV, 0.0), axis=-1) - jax.nn.logsumexp(logits_BxV, axis=-1)
        here_BxR = (jnp.arange(shapes.ring)[None, :] == count_B[:, None]) & s.active_B[:, None]
        return s.replace(
            cache=cache,
            step=s.step + 1,
            token_B=token_B,
            active_B=s.active_B & (token_B != shapes.eos) & (count_B + 1 < s.limit_B),
            written_BxR=jnp.where(here_BxR, token_B[:, None], s.written_BxR),
            logprob_BxR=jnp.where(here_BxR, chosen_B[:, None], s.logprob_BxR),
        )

    return jax.lax.fori_loop(0, shapes.chunk, one, slots)
