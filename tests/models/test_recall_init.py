"""The start that can look things up: what its heads look at before any training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glore_jax.method import base_model
from glore_jax.models import decoder
from glore_jax.models.decoder import Attention, Decoder, DecoderConfig, FeedForward, RMSNorm, rotate
from glore_jax.models.recall_init import LOOKUPS, OFFSETS
from glore_jax.models.visibility import Visibility

SIZES = {"d_model": 64, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "head_dim": 32, "d_ff": 128}
CONFIG = DecoderConfig(vocab_size=96, rope_theta=100_000.0, **SIZES)
PARAMS = base_model.init(Decoder(CONFIG), 0)
GROUPS = CONFIG.num_heads // CONFIG.num_kv_heads


def attention(layer: int, tokens: list[int], at: int) -> np.ndarray:
    """Weights [heads, tokens] of the token at a place, on what comes before, after the layers below."""
    c, x = CONFIG, PARAMS["embedding"][jnp.asarray(tokens)][None]
    norm = RMSNorm(c.norm_eps, c.dtype)
    ones = {"params": {"scale": jnp.ones(c.d_model)}}
    positions = jnp.arange(len(tokens), dtype=jnp.int32)[None]
    mask = Visibility(jnp.ones_like(positions)).mask()
    for i in range(layer):
        x += Attention(c).apply({"params": PARAMS[f"attention_{i}"]}, norm.apply(ones, x), positions, mask, None, None)[
            0
        ]
        x += FeedForward(c).apply({"params": PARAMS[f"mlp_{i}"]}, norm.apply(ones, x))
    weights, x_1xTxD = PARAMS[f"attention_{layer}"], norm.apply(ones, x)
    q = rotate((x_1xTxD @ weights["wq"]).reshape(1, -1, c.num_heads, c.head_dim), positions, c.rope_theta)
    k = rotate((x_1xTxD @ weights["wk"]).reshape(1, -1, c.num_kv_heads, c.head_dim), positions, c.rope_theta)
    scores_NxT = jnp.einsum("nh,tnh->nt", q[0, at], jnp.repeat(k[0], GROUPS, axis=1)) * c.head_dim**-0.5
    return np.asarray(jax.nn.softmax(scores_NxT[:, : at + 1], axis=-1))


@pytest.mark.parametrize("at", [4, 9, 14])
def test_heads_of_the_first_layer_look_at_a_fixed_distance_whatever_stands_there(at: int):
    rng = np.random.default_rng(at)
    for _ in range(10):
        seen = attention(0, list(rng.permutation(96)[:20]), at)[: len(OFFSETS)]
        assert list(np.argmax(seen, axis=1)) == [at - offset for offset in OFFSETS]
        assert np.all(np.max(seen, axis=1) > 0.5)


@pytest.mark.parametrize(
    ("layer", "head", "of_key", "of_query"),
    [
        (layer, key_head * GROUPS + place, of_key, of_query)
        for layer, key_heads in LOOKUPS.items()
        for key_head, (of_key, of_queries) in enumerate(key_heads)
        for place, of_query in enumerate(of_queries)
    ],
)
def test_heads_of_later_layers_find_what_stood_at_a_distance_from_a_name(layer, head, of_key, of_query):
    rng, found = np.random.default_rng(0), 0
    for _ in range(40):
        tokens = list(rng.permutation(96)[:60])
        name, at = rng.integers(3, 40), 55
        tokens[at - of_query] = tokens[name]
        best = int(np.argmax(attention(layer, tokens, at)[head]))
        found += best in (name + of_key, at - of_query + of_key)  # the query's own copy of the name counts as well
    assert found > 20  # by chance less than 2


def test_small_sizes_get_what_fits_and_shapes_stay():
    for sizes in (SIZES, {**SIZES, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "d_model": 16}):
        model = Decoder(DecoderConfig(vocab_size=96, **sizes))
        fresh = decoder.init(model, jax.random.key(0))
        made = base_model.init(model, 0)
        assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, fresh)
        assert np.all(made["embedding"][:, 0] == 1.0)
        assert not np.array_equal(made["attention_0"]["wo"], fresh["attention_0"]["wo"])
        np.testing.assert_array_equal(made["mlp_0"]["up"], fresh["mlp_0"]["up"])
