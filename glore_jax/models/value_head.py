"""A scalar head on the hidden state: the logit of a probability at a step end."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def init(rng: jax.Array, d_model: int) -> dict[str, jax.Array]:
    """Parameters of the head: near zero, so that training starts from the probability one half."""
    return {"kernel": 0.02 * jax.random.normal(rng, (d_model,)), "bias": jnp.zeros(())}


def apply(head: Any, hidden: jax.Array) -> jax.Array:
    """Value logits [...] in float32 of hidden states [..., D]."""
    return hidden.astype(jnp.float32) @ head["kernel"] + head["bias"]
