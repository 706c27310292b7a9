"""A start for small decoders with the heads that looking things up takes.

To read "Ben has Ann plus another 3 nuts" and later find what belongs to Ben, a transformer needs two heads in a
row: one that notes at each token which tokens stand before it, and one that finds the token whose note is wanted.
From a random start neither helps without the other, and a small model stays on a plateau for millions of tokens.
Here both are there at the start, and training bends them to its needs: a mimetic initialisation
(Trockman and Kolter, 2023), with distances for rotary positions.

The residual stream is shared out. Axis 0 is the same for every token. Then come parts of equal size: part 0 is
the token's own code, part o the code of the token o places before, which the first layer writes.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.models.decoder import DecoderConfig

OFFSETS = (1, 2, 3, 4)  # distances of the tokens before that the heads of the first layer note, one a head
# By layer, for each key head: the part of the key, and the parts of the query that its query heads compare with it.
# After "Ben" or "Ben =" comes what stood two after another "Ben" (2: 0, 2: 1), after "Ann" what stood next to it
# (1: 0), after "Ann +" what stood three after (3: 1). "Ben = Ann + 3: <<" goes on with what stands next to an "Ann"
# (1: 3), then with what stands two after it (2: 4); a second person's number may come after one of two digits (1: 4).
LOOKUPS = {1: ((2, (1, 0)), (1, (0, 3))), 2: ((3, (1,)), (1, (4,))), 3: ((2, (4,)),)}
SHARPNESS = 5.0  # score that each fast frequency gives to the right distance
LIKENESS = 2.6  # of keys and queries: equal parts score about 12, others 0 give or take 3
_REST = 0.3  # how much of a random start the keys and queries of these layers keep
_FAST = 6  # rotary frequencies, from the fastest, that tell distances apart; the others hardly turn and compare codes


def apply(params: Any, config: DecoderConfig, key: jax.Array) -> Any:
    """Parameters [tree of `Decoder.init`] with heads that recall; small sizes get as many of them as fit.

    Nothing else is written to the residual stream at first: all other outputs of layers start at zero.
    What they read with keeps its random start, weaker in the keys and queries beside those of the heads.
    """
    c = config
    params = jax.tree_util.tree_map_with_path(lambda path, w: 0 * w if path[-1].key in ("wo", "down") else w, params)
    size = min((c.d_model - 1) // (1 + len(OFFSETS)), len(_slow(c)))
    code_VxP = jax.random.normal(key, (c.vocab_size, size))
    code_VxP /= jnp.linalg.norm(code_VxP, axis=1, keepdims=True)
    embedding = jnp.zeros((c.vocab_size, c.d_model)).at[:, 0].set(1.0).at[:, _part(0, size)].set(code_VxP)
    out = {**params, "embedding": embedding, "attention_0": _notes(params["attention_0"], c, size)}
    for layer, lookups in LOOKUPS.items():
        if layer < c.num_layers:
            out[f"attention_{layer}"] = _lookups(params[f"attention_{layer}"], c, size, lookups)
    return out


def _part(number: int, size: int) -> jax.Array:
    """The axes of a part."""
    return 1 + number * size + jnp.arange(size)


def _fast(c: DecoderConfig) -> int:
    return min(_FAST, c.head_dim // 4)


def _slow(c: DecoderConfig) -> list[int]:
    """The axes of a head that rotary positions hardly turn, slowest first."""
    half = c.head_dim // 2
    return [axis for f in reversed(range(_fast(c), half)) for axis in (f, f + half)]


def _notes(weights: Any, c: DecoderConfig, size: int) -> Any:
    """Heads that copy the code of the token at a fixed distance: their scores depend on nothing else."""
    half, fast = c.head_dim // 2, _fast(c)
    angles_F = c.rope_theta ** (-jnp.arange(fast) / half)
    length = (c.d_model / 2) ** 0.5  # of axis 0 and of a code after the norm
    strength = (SHARPNESS * c.head_dim**0.5) ** 0.5 / length
    turning = jnp.array([*range(fast), *range(half, half + fast)])
    wq = _REST * _by_head(weights["wq"], c).at[:, :, turning].set(0.0)
    wk = _REST * _by_head(weights["wk"], c).at[:, :, turning].set(0.0)
    wk = wk.at[0, :, :fast].set(strength)
    wv = _by_head(weights["wv"], c).at[:, :, :size].set(0.0)
    wv = wv.at[_part(0, size), :, jnp.arange(size)].set(1.0)
    wo = jnp.zeros((c.num_heads, c.head_dim, c.d_model))
    for head, offset in enumerate(OFFSETS[: c.num_heads]):
        wq = wq.at[0, head, :fast].set(strength * jnp.cos(angles_F * offset))
        wq = wq.at[0, head, half : half + fast].set(-strength * jnp.sin(angles_F * offset))
        wo = wo.at[head, jnp.arange(size), _part(offset, size)].set(1 / length)
    flat = {name: w.reshape(c.d_model, -1) for name, w in (("wq", wq), ("wk", wk), ("wv", wv))}
    return {**flat, "wo": wo.reshape(-1, c.d_model)}


def _lookups(weights: Any, c: DecoderConfig, size: int, lookups: tuple[tuple[int, tuple[int, ...]], ...]) -> Any:
    """Query heads that look for tokens whose part of the key is their own part of the query."""
    groups = c.num_heads // c.num_kv_heads
    wq, wk = _REST * _by_head(weights["wq"], c), _REST * _by_head(weights["wk"], c)
    slow = jnp.array(_slow(c)[:size])
    for head, (of_key, of_queries) in enumerate(lookups[: c.num_kv_heads]):
        wk = wk.at[_part(of_key, size), head, slow].set(LIKENESS)
        for place, of_query in enumerate(of_queries[:groups]):
            wq = wq.at[_part(of_query, size), head * groups + place, slow].set(LIKENESS)
    return {**weights, "wq": wq.reshape(c.d_model, -1), "wk": wk.reshape(c.d_model, -1)}


def _by_head(weight: jax.Array, c: DecoderConfig) -> jax.Array:
    return weight.reshape(c.d_model, -1, c.head_dim)
