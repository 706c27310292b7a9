"""A scalar head on the hidden state: the logit of a probability at a step end."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder


def init(rng: jax.Array, d_model: int) -> dict[str, jax.Array]:
    """Parameters of the head: near zero, so that training starts from the probability one half."""
    return {"kernel": 0.02 * jax.random.normal(rng, (d_model,)), "bias": jnp.zeros(())}


def apply(head: Any, hidden: jax.Array) -> jax.Array:
    """Value logits [...] in float32 of hidden states [..., D]."""
    return hidden.astype(jnp.float32) @ head["kernel"] + head["bias"]


class ValueModel(nn.Module):
    """Values as a plain call: `ValueModel(decoder).apply({"params": params}, tokens_BxT) -> value logits [B, T]`.

    The parameters are `{"decoder": ..., "value_head": ...}`. Each row is one sequence from position 0 on, read
    causally; the sigmoid of a logit is the value of the prefix that ends with its token.
    """

    decoder: Decoder

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array) -> jax.Array:
        hidden_BxTxD = decoder.read(self.decoder, tokens_BxT)
        return apply(self.param("value_head", init, self.decoder.config.d_model), hidden_BxTxD)
