"""The scalar head: hand-computed logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from glore_jax.models import value_head


def test_a_value_is_a_product_and_a_bias():
    head = {"kernel": jnp.array([1.0, -2.0, 0.5]), "bias": jnp.array(0.25)}
    hidden = jnp.array([[[1.0, 1.0, 2.0], [0.0, -1.0, 4.0]]])
    np.testing.assert_allclose(value_head.apply(head, hidden), [[0.25, 4.25]], rtol=1e-6)
    half = value_head.apply(head, hidden.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32


def test_a_fresh_head_says_one_half():
    head = value_head.init(jax.random.key(0), 16)
    assert head["kernel"].shape == (16,)
    hidden = jax.random.normal(jax.random.key(1), (50, 16))
    np.testing.assert_allclose(jax.nn.sigmoid(value_head.apply(head, hidden)), 0.5, atol=0.1)
    assert float(jnp.std(head["kernel"])) > 0
