"""The head of a value model: the logit of a probability at a step end.

It is the sum of two parts. One is linear in the hidden state at the step's last token. The other, which a
head may do without, is the *surprise* so far: the log-probability that the model itself gives each token
of the solution, times how much it matters, which a gate reads from the hidden state at that token. A deep
model can compare its expectation with the token that came in the layers that follow; a shallow one has
formed the expectation in its last layer only, so it is handed the comparison.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from glore_jax.models import decoder, next_token, whole_rows
from glore_jax.models.decoder import Decoder
from glore_jax.models.visibility import Visibility

_FIRST_GATE = -1.0  # softplus(-1) = 0.31 for a nat of any token


def init(rng: jax.Array, d_model: int, surprise: bool = False) -> dict[str, jax.Array]:
    """Parameters of the head: near zero, so that training starts from the probability one half.

    With `surprise` every nat of it counts alike at first.
    """
    head = {"kernel": 0.02 * jax.random.normal(rng, (d_model,)), "bias": jnp.zeros(())}
    gate = {"gate": jnp.zeros(d_model), "gate_bias": jnp.full((), _FIRST_GATE, jnp.float32)}
    return head | gate if surprise else head


def apply(head: Any, hidden: jax.Array) -> jax.Array:
    """The linear part: value logits [...] in float32 of hidden states [..., D]."""
    return hidden.astype(jnp.float32) @ head["kernel"] + head["bias"]


def surprise(head: Any, hidden_BxTxD: jax.Array, nats_BxT: jax.Array, mask_BxTxT: jax.Array) -> jax.Array:
    """The other part [B, T], never positive: at each position the gated surprise of what it may attend to.

    Args:
      nats_BxT: surprise at each token, -log p(token | those before); 0 at tokens that do not count.
      mask_BxTxT: which keys a position may attend to.
    """
    gate_BxT = jax.nn.softplus(hidden_BxTxD.astype(jnp.float32) @ head["gate"] + head["gate_bias"])
    return -jnp.einsum("bts,bs->bt", mask_BxTxT.astype(jnp.float32), gate_BxT * nats_BxT)


def nats(model: Any, params: Any, hidden_BxTxD: jax.Array, tokens_BxT: jax.Array, written_BxT: jax.Array) -> jax.Array:
    """Surprise [B, T] at each token that was written: -log of the probability that the position before gives it.

    Args:
      model, params: of the decoder, see `next_token.judge`.
      written_BxT: the tokens of solutions, none of them first in a row: there is nothing to expect it from.
    """
    nats_BxT, _ = next_token.judge(model, params, hidden_BxTxD, jnp.roll(tokens_BxT, -1, axis=1))
    return jnp.where(written_BxT, jnp.pad(nats_BxT[:, :-1], ((0, 0), (1, 0))), 0.0)


def read(
    model: Decoder, params: Any, tokens_BxT: jax.Array, positions_BxT: jax.Array, visible: Visibility,
    written_BxT: jax.Array, expects: bool = True,
) -> tuple[jax.Array, jax.Array | None]:  # fmt: skip
    """Value logits [B, T], and the surprise [B, T] in nats at the tokens of solutions.

    No gradient flows from a value into the surprise: values learn what to make of it, and do not bend it.

    Args:
      params: `{"decoder": ..., "value_head": ...}`.
      written_BxT: the tokens of solutions.
      expects: whether the surprise is asked for. It costs the logits of the whole vocabulary; without it they are
        computed for a head that reads it alone.
    """
    hidden_BxTxD = whole_rows.read(model, params["decoder"], tokens_BxT, positions_BxT, visible)
    head = params["value_head"]
    values_BxT = apply(head, hidden_BxTxD)
    if not expects and "gate" not in head:
        return values_BxT, None
    nats_BxT = nats(model, params["decoder"], hidden_BxTxD, tokens_BxT, written_BxT)
    if "gate" in head:
        values_BxT += surprise(head, hidden_BxTxD, jax.lax.stop_gradient(nats_BxT), visible.mask())
    return values_BxT, nats_BxT


class ValueModel(nn.Module):
    """Values as a plain call: `ValueModel(decoder).apply({"params": params}, tokens_BxT) -> value logits [B, T]`.

    The parameters are `{"decoder": ..., "value_head": ...}`, the head without surprise: transformers has no such one.
    Each row is one sequence from position 0 on, read causally; the sigmoid of a logit is the value of the prefix that
    ends with its token.
    """

    decoder: Decoder

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array) -> jax.Array:
        hidden_BxTxD = decoder.read(self.decoder, tokens_BxT)
        return apply(self.param("value_head", init, self.decoder.config.d_model), hidden_BxTxD)
