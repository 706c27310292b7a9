"""The decoder against a reference in NumPy, and what masks, packing and caches must not change."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.method import base_model
from glore_jax.models import decoder
from glore_jax.models.visibility import Visibility
from glore_jax.sampling import kv_cache

CLOSE = {"atol": 2e-5, "rtol": 2e-5}


@functools.partial(jax.jit, static_argnums=0)
def apply(model: Any, params: Any, *arguments: Any) -> Any:
    return model.apply({"params": params}, *arguments)


def forward(
    tokens: Any, positions: Any = None, visible: Any = None, model: Any = None, params: Any = None
) -> np.ndarray:
    """Hidden states [B, T, D]; positions count up and tokens are read causally unless given."""
    if model is None:
        model, params = tiny.random_decoder()
    tokens = jnp.asarray(tokens, jnp.int32)
    if positions is None:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    if visible is None:
        visible = Visibility(jnp.ones_like(tokens))
    hidden, cache = apply(model, params, tokens, jnp.asarray(positions, jnp.int32), visible)
    assert cache is None
    return np.asarray(hidden)


def random_tokens(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, tiny.VOCAB, shape)


def reference_norm(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale


def reference_rotate(x_TxH: np.ndarray, theta: float) -> np.ndarray:
    """Each pair (x_j, x_{j + H/2}) turned by position * theta^(-2j/H), as complex numbers."""
    T, H = x_TxH.shape
    angles = np.arange(T)[:, None] * theta ** (-2 * np.arange(H // 2) / H)
    turned = (x_TxH[:, : H // 2] + 1j * x_TxH[:, H // 2 :]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=1)


def reference(tokens_T: np.ndarray, params: Any, c: decoder.DecoderConfig) -> np.ndarray:
    """Hidden states [T, D] of one causal sequence in float64, one head after the other."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = p["embedding"][tokens_T]
    T, H = len(tokens_T), c.head_dim
    for i in range(c.num_layers):
        h = reference_norm(x, p[f"attention_norm_{i}"]["scale"], c.norm_eps)
        a = p[f"attention_{i}"]
        heads = []
        for n in range(c.num_heads):
            k_head = n * c.num_kv_heads // c.num_heads  # query heads 0 .. G-1 read key head 0, and so on
            q = reference_rotate(h @ a["wq"][:, n * H : (n + 1) * H], c.rope_theta)
            k = reference_rotate(h @ a["wk"][:, k_head * H : (k_head + 1) * H], c.rope_theta)
            v = h @ a["wv"][:, k_head * H : (k_head + 1) * H]
            scores = np.where(np.tril(np.ones((T, T), bool)), q @ k.T / np.sqrt(H), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v)
        x = x + np.concatenate(heads, axis=1) @ a["wo"]
        h = reference_norm(x, p[f"mlp_norm_{i}"]["scale"], c.norm_eps)
        m = p[f"mlp_{i}"]
        gate = h @ m["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ m["up"])) @ m["down"]
    return reference_norm(x, p["final_norm"]["scale"], c.norm_eps)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_forward_is_the_reference(heads: int, kv_heads: int):
    config = tiny.decoder_config(num_heads=heads, num_kv_heads=kv_heads, rope_theta=100.0)
    model = decoder.Decoder(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: np.asarray(rng.normal(size=x.shape) * 0.5, np.float32), base_model.init(model, 0)
    )  # norms and all: nothing is left at one
    tokens = random_tokens(2, 9)
    hidden = forward(tokens, model=model, params=params)
    for row in range(2):
        np.testing.assert_allclose(hidden[row], reference(tokens[row], params, config), atol=2e-4, rtol=2e-4)


def test_logits_are_products_with_the_unembedding():
    _, params = tiny.random_decoder()
    hidden = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    got = decoder.logits(params, jnp.asarray(hidden))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, hidden.astype(np.float64) @ params["unembedding"].T, **CLOSE)


def test_rotation_keeps_lengths_and_depends_on_distance_alone():
    rng = np.random.default_rng(1)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def score(at_q: int, at_k: int) -> float:
        turned = [decoder.rotate(x, jnp.array([[at]]), 100.0) for x, at in ((q, at_q), (k, at_k))]
        np.testing.assert_allclose(jnp.linalg.norm(turned[0]), jnp.linalg.norm(q), rtol=1e-5)
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(7, 3) == pytest.approx(score(14, 10), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-2)


def test_packed_rows_equal_separate_rows():
    a, b = random_tokens(5), random_tokens(4, seed=1)
    packed = np.concatenate([a, b, [0, 0]])[None]
    positions = np.concatenate([np.arange(5), np.arange(4), [0, 0]])[None]
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 2])
    hidden = forward(packed, positions, Visibility(jnp.asarray(segments)))[0]
    np.testing.assert_allclose(hidden[:5], forward(a[None])[0], **CLOSE)
    np.testing.assert_allclose(hidden[5:9], forward(b[None])[0], **CLOSE)
    assert np.isfinite(hidden).all()  # padding too


def test_no_position_sees_a_later_one():
    tokens = random_tokens(1, 8)
    before = forward(tokens)[0]
    for at in (1, 4, 7):
        changed = tokens.copy()
        changed[0, at] = 3 + (changed[0, at] - 2) % (tiny.VOCAB - 3)
        after = forward(changed)[0]
        np.testing.assert_array_equal(after[:at], before[:at])
        assert all(np.abs(after[t] - before[t]).max() > 1e-4 for t in range(at, 8))


def test_a_prefix_is_read_in_both_directions():
    segments = jnp.array([[1, 1, 1, 1, 2, 2]])
    prefix = jnp.array([[True, True, False, False, True, False]])
    expected = [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    visible = Visibility(segments, prefix)
    np.testing.assert_array_equal(visible.mask()[0].astype(int), expected)
    tokens = random_tokens(1, 6)
    changed = tokens.copy()
    changed[0, 1] = 3 + (changed[0, 1] - 2) % (tiny.VOCAB - 3)
    apart = np.abs(forward(changed, visible=visible)[0] - forward(tokens, visible=visible)[0]).max(-1)
    assert (apart[:4] > 1e-4).all()  # position 0 reads position 1 of its own prefix
    assert (apart[4:] == 0).all()  # another segment does not
    no_prefix = Visibility(segments, jnp.zeros_like(prefix))
    np.testing.assert_array_equal(no_prefix.mask(), Visibility(segments).mask())


def test_grouped_heads_equal_repeated_heads():
    grouped, params = tiny.random_decoder()
    c = grouped.config
    full = decoder.Decoder(tiny.decoder_config(num_kv_heads=c.num_heads))
    repeated = jax.tree.map(np.asarray, params)
    for i in range(c.num_layers):
        layer = dict(repeated[f"attention_{i}"])
        for name in ("wk", "wv"):
            by_head = layer[name].reshape(c.d_model, c.num_kv_heads, c.head_dim)
            layer[name] = by_head.repeat(c.num_heads // c.num_kv_heads, axis=1).reshape(c.d_model, -1)
        repeated = repeated | {f"attention_{i}": layer}
    tokens = random_tokens(2, 7)
    np.testing.assert_allclose(forward(tokens), forward(tokens, model=full, params=repeated), **CLOSE)


def test_cached_decoding_equals_full_forward():
    model, params = tiny.random_decoder()
    tokens = jnp.asarray(random_tokens(2, 8), jnp.int32)
    full = forward(tokens)
    columns = 11  # more than are used: what is not written yet must be masked
    cache = kv_cache.zeros(model.config, 2, columns)
    prompt = 3
    positions = jnp.broadcast_to(jnp.arange(8), (2, 8))
    for start, stop in [(0, prompt), *((t, t + 1) for t in range(prompt, 8))]:
        mask = jnp.arange(columns)[None, None, :] <= positions[:, start:stop, None]
        here = tokens[:, start:stop], positions[:, start:stop]
        hidden, cache = apply(model, params, *here, mask, cache, jnp.int32(start))
        np.testing.assert_allclose(hidden, full[:, start:stop], **CLOSE)


def test_half_precision_is_near_and_keeps_float32_logits():
    _, params = tiny.random_decoder()
    half = decoder.Decoder(tiny.decoder_config(dtype="bfloat16"))
    tokens = random_tokens(1, 6)
    visible = Visibility(jnp.ones((1, 6), jnp.int32))
    hidden, _ = apply(half, params, jnp.asarray(tokens, jnp.int32), jnp.arange(6)[None], visible)
    assert hidden.dtype == jnp.bfloat16
    assert decoder.logits(params, hidden).dtype == jnp.float32
    np.testing.assert_allclose(hidden.astype(jnp.float32), forward(tokens), atol=0.15)


def test_every_parameter_names_its_axes():
    model = decoder.Decoder(tiny.decoder_config())
    tokens = jnp.zeros((1, 4), jnp.int32)
    boxed = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens, Visibility(tokens))["params"]
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: hasattr(x, "names"))
    assert all(len(box.names) == box.value.ndim for box in boxes)
    names = {name for box in boxes for name in box.names}
    assert names == {"vocab", "embed", "heads", "kv_heads", "mlp", "norm"}


@pytest.mark.parametrize(("sizes", "message"), [({"num_kv_heads": 3}, "multiple"), ({"head_dim": 7}, "even")])
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        tiny.decoder_config(**sizes)
