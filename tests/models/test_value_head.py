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


def test_a_fresh_head_is_of_the_type_that_training_gives_back():
    """A weak type would become a strong one in the first step, and the second step would be compiled anew."""
    assert [leaf.aval.weak_type for leaf in jax.tree.leaves(value_head.init(jax.random.key(0), 4, True))] == [False] * 4


def test_surprise_counts_by_its_gate_and_only_where_it_may_be_seen():
    gate = float(np.log(np.e - 1))  # softplus of it is 1
    head = {"gate": jnp.array([1.0, 0.0]), "gate_bias": jnp.array(gate)}
    hidden = jnp.array([[[0.0, 5.0], [0.0, 5.0], [2.0, 5.0], [0.0, 5.0]]])  # the third token matters more
    nats = jnp.array([[0.0, 0.5, 0.25, 1.0]])
    seen = jnp.tril(jnp.ones((1, 4, 4), bool)).at[0, 3, 1].set(False)
    third = 0.25 * np.log1p(np.exp(gate + 2))
    np.testing.assert_allclose(
        value_head.surprise(head, hidden, nats, seen), [[0, -0.5, -0.5 - third, -third - 1]], rtol=1e-6
    )


def test_nats_of_a_token_are_what_the_position_before_expects():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]))
    tokens, written = jnp.array([[0, 2, 1]]), jnp.array([[False, True, True]])
    of = None, {"unembedding": jnp.eye(3)}, logits, tokens  # hidden states that are the logits
    np.testing.assert_allclose(value_head.nats(*of, written), [[0, -np.log(0.25), -np.log(0.8)]], rtol=1e-6)
    np.testing.assert_allclose(
        value_head.nats(*of, jnp.array([[False, False, True]])), [[0, 0, -np.log(0.8)]], rtol=1e-6
    )


def test_of_a_fresh_head_surprise_alone_lowers_the_value():
    head = value_head.init(jax.random.key(0), 16, surprise=True)
    hidden, seen = jax.random.normal(jax.random.key(1), (1, 3, 16)), jnp.tril(jnp.ones((1, 3, 3), bool))
    found = value_head.surprise(head, hidden, jnp.array([[0.0, 1.0, 2.0]]), seen)
    np.testing.assert_allclose(found, np.log1p(np.exp(-1)) * np.array([[0, -1, -3]]), rtol=1e-5)
