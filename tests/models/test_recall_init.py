"""The start that can look things up: what its heads look at before any training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glore_jax.method import base_model
from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder, DecoderConfig, rotate
from glore_jax.models.recall_init import OFFSETS

CONFIG = DecoderConfig(vocab_size=96, d_model=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=32, d_ff=128)
PARAMS = base_model.init(Decoder(CONFIG), 0)


def attention(layer: int, tokens: list[int], at: int) -> np.ndarray:
    """Weights [heads, tokens] of the token at a place, all others in sight, on plain embeddings."""
    c, weights = CONFIG, PARAMS[f"attention_{layer}"]
    x_TxD = PARAMS["embedding"][jnp.asarray(tokens)]
    x_1xTxD = (x_TxD / jnp.sqrt(jnp.mean(x_TxD**2, axis=-1, keepdims=True)))[None]
    positions = jnp.arange(len(tokens))[None]
    q = rotate((x_1xTxD @ weights["wq"]).reshape(1, -1, c.num_heads, c.head_dim), positions, c.rope_theta)
    k = rotate((x_1xTxD @ weights["wk"]).reshape(1, -1, c.num_kv_heads, c.head_dim), positions, c.rope_theta)
    k_TxNxH = jnp.repeat(k[0], c.num_heads // c.num_kv_heads, axis=1)
    scores_NxT = jnp.einsum("nh,tnh->nt", q[0, at], k_TxNxH) * c.head_dim**-0.5
    return np.asarray(jax.nn.softmax(scores_NxT, axis=-1))


@pytest.mark.parametrize("at", [4, 9, 14])
def test_heads_of_the_first_layer_look_at_a_neighbour_whatever_stands_there(at: int):
    rng = np.random.default_rng(at)
    seen = np.mean([attention(0, list(rng.permutation(96)[:20]), at) for _ in range(20)], axis=0)
    assert list(np.argmax(seen, axis=1)) == [at - offset for offset in OFFSETS]
    assert np.all(np.max(seen, axis=1) > 0.5)


def test_heads_of_later_layers_look_for_the_same_token():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        at, like = rng.choice(20, 2, replace=False)
        tokens = list(rng.permutation(96)[:20])
        tokens[like] = tokens[at]
        seen = attention(1, tokens, at)
        found += [like in np.argsort(seen[head])[-2:] for head in (0, 2)]  # the first query head of each key head
    assert np.mean(found) > 0.4  # by chance 2 of 20


def test_shapes_stay_and_every_embedding_has_the_common_direction():
    fresh = jax.eval_shape(lambda: decoder.init(Decoder(CONFIG), jax.random.key(0)))
    assert jax.tree.map(jnp.shape, PARAMS) == jax.tree.map(jnp.shape, fresh)
    common_D = jnp.full((CONFIG.d_model,), CONFIG.d_model**-0.5)
    np.testing.assert_allclose(PARAMS["embedding"] @ common_D, 1.0, rtol=1e-5)
