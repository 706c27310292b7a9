"""What the families add to the decoder, each by itself: windows under every mask, caps, rotary frequencies, ties."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.models import decoder
from glore_jax.models.decoder import Attention, Decoder
from glore_jax.models.rotary import rotate, slowed
from glore_jax.models.visibility import Visibility
from glore_jax.sampling import kv_cache
from glore_jax.training import losses

WINDOW = 3
CLOSE = {"atol": 2e-5, "rtol": 2e-5}
_, PARAMS = tiny.random_decoder()
WINDOWED = Decoder(tiny.decoder_config(layer_windows=(WINDOW, 0)))


@functools.partial(jax.jit, static_argnums=0)
def forward(model: Decoder, tokens: Any, positions: Any, visible: Any) -> jax.Array:
    return model.apply({"params": PARAMS}, tokens, positions, visible)[0]


def row(length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(seed).integers(3, tiny.VOCAB, (1, length), np.int32)
    return tokens, np.arange(length, dtype=np.int32)[None]


def all_layers(tokens: np.ndarray, positions: np.ndarray, visible: Any) -> np.ndarray:
    model = Decoder(tiny.decoder_config(layer_windows=(WINDOW, WINDOW)))
    return np.asarray(forward(model, tokens, positions, visible))


@pytest.mark.parametrize("prefix", [0, 6])
def test_a_window_counts_positions_to_both_sides(prefix: int):
    """All layers with a window are all layers with a mask that has the window in it."""
    tokens, positions = row(9)
    both_ways = jnp.asarray(positions < prefix) if prefix else None
    visible = Visibility(jnp.ones_like(tokens), both_ways)
    q, k = np.arange(9)[:, None], np.arange(9)[None, :]
    by_hand = (abs(q - k) < WINDOW) & ((k <= q) | ((q < prefix) & (k < prefix)))
    plain = Decoder(tiny.decoder_config())
    expected = forward(plain, tokens, positions, by_hand[None])
    np.testing.assert_allclose(all_layers(tokens, positions, visible), expected, **CLOSE)
    assert np.abs(forward(plain, tokens, positions, visible) - expected).max() > 1e-2


def test_two_layers_see_two_windows_back():
    tokens, positions = row(9)
    visible = Visibility(jnp.ones_like(tokens))
    before = all_layers(tokens, positions, visible)
    changed = tokens.copy()
    changed[0, 1] = 3 + (changed[0, 1] - 2) % (tiny.VOCAB - 3)
    apart = np.abs(all_layers(changed, positions, visible) - before).max(-1)[0]
    assert (apart[1:6] > 1e-5).all() and (apart[6:] == 0).all()  # 1 + 2 * (WINDOW - 1) is the last
    half = np.abs(forward(WINDOWED, changed, positions, visible) - forward(WINDOWED, tokens, positions, visible)).max(
        -1
    )[0]
    assert (half[1:] > 1e-6).all()  # the other layer sees everything


def test_packed_rows_with_windows_equal_separate_rows():
    (a, at), (b, bt) = row(6), row(5, seed=1)
    tokens, positions = np.concatenate([a, b, [[0, 0]]], axis=1), np.concatenate([at, bt, [[0, 0]]], axis=1)
    visible = Visibility(jnp.asarray([[1] * 6 + [2] * 5 + [0] * 2]))
    packed = np.asarray(forward(WINDOWED, tokens.astype(np.int32), positions.astype(np.int32), visible))
    for (t, p), span in (((a, at), slice(0, 6)), ((b, bt), slice(6, 11))):
        alone = forward(WINDOWED, t, p, Visibility(jnp.ones_like(t)))
        np.testing.assert_allclose(packed[:, span], alone, **CLOSE)
    assert np.isfinite(packed).all()


def test_a_prefix_lm_is_not_called_on_tokens_alone():
    model = decoder.CausalLM(Decoder(tiny.decoder_config(prefix_lm=True)))
    with pytest.raises(ValueError, match="call its decoder"):
        model.apply({"params": PARAMS}, row(3)[0])


def test_a_cache_needs_the_positions_of_its_columns():
    tokens, positions = row(4)
    mask = Visibility(jnp.ones_like(tokens)).mask()
    cache = kv_cache.zeros(WINDOWED.config, 1, 4)
    with pytest.raises(ValueError, match="needs the key positions of its cache"):
        WINDOWED.apply({"params": PARAMS}, tokens, positions, mask, cache, jnp.int32(0))


def test_positions_are_what_a_written_log_says():
    """Against a log of which step wrote each ring column, for slots that started at different steps."""
    ring, prefix, log = 5, 4, [-100] * 5
    for step in range(17):
        log[step % ring] = step
        for start in range(max(0, step - ring + 1), step + 1):
            arguments = jnp.array([3]), jnp.array([start]), jnp.array(step), prefix, ring
            seen, at = (f(*arguments)[0] for f in (kv_cache.visible, kv_cache.positions))
            assert at[:prefix].tolist() == [0, 1, 2, 3]
            assert [int(p) for p, s in zip(at[prefix:], seen[prefix:], strict=True) if s] == [
                3 + wrote - start for wrote in log if start <= wrote
            ]
            assert int(at[prefix + step % ring]) == 3 + step - start  # the token that is being read


def test_soft_caps_bound_and_leave_small_values():
    x = jnp.array([-1e6, -0.01, 0.0, 0.02, 3.0, 1e6])
    np.testing.assert_allclose(decoder.soft_cap(x, 2.0), 2.0 * np.tanh(np.asarray(x) / 2.0), rtol=1e-6)
    assert decoder.soft_cap(x, 0.0) is x


def test_the_language_loss_is_on_capped_logits():
    capped = Decoder(tiny.decoder_config(logit_soft_cap=0.5))
    tokens, positions = row(5)
    batch = {"tokens": tokens, "positions": positions, "segments": np.ones_like(tokens), "prefix": tokens < 0}
    batch |= {"targets": tokens.astype(np.float32), "weights": np.ones((1, 5), np.float32)}
    total, _ = jax.jit(losses.language, static_argnums=0)(capped, {"decoder": PARAMS}, batch)
    hidden = forward(capped, tokens, positions, Visibility(jnp.ones_like(tokens)))
    logits = 0.5 * np.tanh(np.asarray(decoder.logits(PARAMS, hidden), np.float64)[0] / 0.5)
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(5), tokens[0]]
    assert float(total) == pytest.approx(nats.sum(), rel=1e-5)


def test_slowed_frequencies_turn_slower():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 1, 8)), jnp.float32)
    positions = jnp.arange(6)[None]
    linear = slowed(2.0, 0, 1.0, 4.0)
    np.testing.assert_allclose(
        rotate(x, 2 * positions, 100.0, linear), rotate(x, positions, 100.0), atol=1e-5, rtol=1e-5
    )
    assert slowed(1.0, 32, 1.0, 4.0) is None


def test_layers_with_a_window_turn_by_their_own_base():
    config = tiny.decoder_config(layer_windows=(WINDOW, 0), local_rope_theta=10.0, rope_factor=4.0)
    assert [a.local for a in Decoder(config).bind({"params": PARAMS}).attention] == [True, False]
    tokens, positions = row(6)
    mask = Visibility(jnp.ones_like(tokens)).mask()
    x = jax.random.normal(jax.random.key(0), (1, 6, config.d_model))
    params = {"params": PARAMS["attention_0"]}
    near = tiny.decoder_config(rope_theta=10.0)
    expected, _ = Attention(near).apply(params, x, positions, mask, None, None)
    found, _ = Attention(config, local=True).apply(params, x, positions, mask, None, None)
    np.testing.assert_array_equal(found, expected)


def test_a_tied_embedding_is_the_unembedding():
    model = Decoder(tiny.decoder_config(tied_embedding=True))
    shapes = jax.eval_shape(functools.partial(decoder.init, model), jax.random.key(0))
    assert "unembedding" not in shapes
    hidden = jax.random.normal(jax.random.key(0), (3, 16))
    tied = {name: array for name, array in PARAMS.items() if name != "unembedding"}
    np.testing.assert_allclose(decoder.logits(tied, hidden), hidden @ PARAMS["embedding"].T, **CLOSE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"layer_windows": (3,)}, "layer_windows has 1 entries for num_layers=2"), ({"activation": "relu"}, "none of")],
)
def test_traits_that_do_not_fit_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        tiny.decoder_config(**changes)


def test_a_configuration_from_json_is_the_one_that_was_written():
    config = tiny.decoder_config(layer_windows=(3, 0))
    assert tiny.decoder_config(layer_windows=[3, 0]) == config
    assert hash(Decoder(config)) == hash(Decoder(tiny.decoder_config(layer_windows=[3, 0])))
