"""Operations by formula, against what XLA counts in a program without loops."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tiny

from glore_jax.models import decoder, flops
from glore_jax.models.decoder import Decoder

ROWS, LENGTH = 2, 16


def test_of_a_small_model_by_hand():
    """Two layers of d = 4, two query heads of size 2 and one of keys, feed-forward 8, vocabulary 10."""
    config = tiny.decoder_config(
        vocab_size=10, d_model=4, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=2, d_ff=8
    )
    layer = 4 * 4 + 2 * (4 * 2) + 4 * 4 + 3 * (4 * 8)  # queries, keys and values, output, feed-forward
    assert flops.weights(config) == 2 * layer + 10 * 4
    assert flops.weights(config, with_logits=False) == 2 * layer
    scores = 2 * (2 * 2) * 2 * 3  # layers, heads of this size, products with keys and with values, two for each of 3
    assert flops.reading(config, 5, 3) == 5 * (2 * (2 * layer + 40) + 2 * scores)
    assert flops.training(config, 3, 8) == 3 * flops.reading(config, 3 * 8, 4)


def test_a_compiled_reading_takes_what_the_formula_says():
    """XLA counts what it pads to: every token of a row has a score with every other."""
    config = tiny.decoder_config()
    params = jax.eval_shape(lambda: decoder.init(Decoder(config), jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)
    call = decoder.CausalLM(Decoder(config)).apply
    cost: Any = jax.jit(call).lower({"params": params}, tokens).compile().cost_analysis()
    found = flops.reading(config, ROWS * LENGTH, LENGTH)
    assert found == pytest.approx(cost["flops"], rel=0.15)
    assert found < cost["flops"]  # norms, activations and the softmax are left out
