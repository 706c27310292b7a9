"""Rows for new tokens: the old logits stay, the new ones are their mean."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.models import decoder, vocabulary
from glore_jax.models.decoder import CausalLM, Decoder, DecoderConfig

SMALL = tiny.decoder_config(vocab_size=11, d_model=8, num_layers=1)
TOKENS = jnp.asarray([[1, 5, 3]], jnp.int32)


def made(config: DecoderConfig):
    return decoder.init(Decoder(config), jax.random.key(0))


def logits(config: DecoderConfig, params) -> np.ndarray:
    return np.asarray(CausalLM(Decoder(config)).apply({"params": params}, TOKENS))


@pytest.mark.parametrize("tied", [False, True])
def test_old_logits_stay_and_new_ones_are_their_mean(tied: bool):
    config = dataclasses.replace(SMALL, tied_embedding=tied)
    params = made(config)
    bigger, grown = vocabulary.grow(config, params, 11, 15)
    assert bigger.vocab_size == 15
    before = logits(config, params)
    after = logits(bigger, grown)
    np.testing.assert_allclose(after[..., :11], before, rtol=1e-5, atol=1e-6)
    mean = np.repeat(np.mean(before, -1, keepdims=True), 4, -1)
    np.testing.assert_allclose(after[..., 11:], mean, rtol=1e-4, atol=1e-5)


def test_rows_to_spare_are_taken_before_new_ones():
    params = made(SMALL)
    assert vocabulary.missing_rows(SMALL, 10) == 0
    same, grown = vocabulary.grow(SMALL, params, 8, 10)  # 8 trained, 3 to spare, of which 2 are taken
    assert same == SMALL
    for name in ("embedding", "unembedding"):
        old, new = (np.asarray(tree[name]) for tree in (params, grown))
        np.testing.assert_array_equal(new[[*range(8), 10]], old[[*range(8), 10]])
        np.testing.assert_allclose(new[8:10], np.broadcast_to(old[:8].mean(0), (2, 8)), rtol=1e-5, atol=1e-7)
    bigger, grown = vocabulary.grow(SMALL, params, 8, 13)
    assert vocabulary.missing_rows(SMALL, 13) == 2
    assert bigger.vocab_size == 13 and grown["embedding"].shape == (13, 8)


def test_types_stay_and_the_given_parameters_too():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), made(SMALL))
    kept = np.asarray(params["embedding"], np.float32)
    _, grown = vocabulary.grow(SMALL, params, 11, 12)
    assert grown["embedding"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(params["embedding"], np.float32), kept)
    assert set(grown) == set(params)


@pytest.mark.parametrize("trained", [0, 12])
def test_more_trained_rows_than_there_are_is_an_error(trained: int):
    with pytest.raises(ValueError, match=f"trained={trained} rows, of a model with 11"):
        vocabulary.grow(SMALL, made(SMALL), trained, 20)
