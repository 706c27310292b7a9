"""Losses that are handed to the one trainer.

A loss is `loss(model, params, batch) -> (total, metrics)`, every entry a sum over weighted
positions; `metrics["weight"]` is the sum of weights. The step divides sums by sums, so means over
devices or micro-batches are never means of means.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from glore_jax.models import decoder, next_token, value_head, whole_rows
from glore_jax.models.visibility import Visibility

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]

PREFIXES = 8  # lengths of prefixes that are told apart; the last one stands for longer ones too


def language(model: decoder.Decoder, params: Any, batch: Batch) -> tuple[jax.Array, Sums]:
    """Cross-entropy of the next token (nats), on target positions."""
    hidden_BxTxD = whole_rows.read(
        model, params["decoder"], batch["tokens"], batch["positions"], _visible(model, batch)
    )
    targets_BxT = batch["targets"].astype(jnp.int32)
    nats_BxT, right_BxT = next_token.judge(model, params["decoder"], hidden_BxTxD, targets_BxT)
    total = jnp.sum(nats_BxT * batch["weights"])
    return total, {"accuracy": jnp.sum(right_BxT * batch["weights"]), "weight": jnp.sum(batch["weights"])}


def value(model: decoder.Decoder, params: Any, batch: Batch, language: float = 0.0) -> tuple[jax.Array, Sums]:
    """Binary cross-entropy of step values (nats) against labels in [0, 1], on labelled step ends.

    Beside the sums of all losses there are `right_by_prefix` and `weight_by_prefix` [PREFIXES]: accuracy by the number
    of steps in the prefix that is judged, from 1. With `language` there are `label_loss` and `language_loss`, the two
    terms of the total.

    Args:
      language: weight of the surprise at each token of a solution, beside 1 for a label. It keeps the decoder the
        language model that it was, without which a value model learns the few questions it has by heart.
    """
    logits_BxT, surprise_BxT = value_head.read(
        model, params, batch["tokens"], batch["positions"], _visible(model, batch), batch["written"], bool(language)
    )
    nats_BxT = optax.sigmoid_binary_cross_entropy(logits_BxT, batch["targets"])
    right_BxT = ((logits_BxT >= 0) == (batch["targets"] >= 0.5)).astype(jnp.float32)
    total, terms = jnp.sum(nats_BxT * batch["weights"]), {}
    if language and surprise_BxT is not None:
        terms = {"label_loss": total, "language_loss": language * jnp.sum(surprise_BxT)}
        total = terms["label_loss"] + terms["language_loss"]
    weights_BxTxP = batch["weights"][..., None] * jax.nn.one_hot(jnp.minimum(batch["steps"], PREFIXES) - 1, PREFIXES)
    return total, terms | {
        "accuracy": jnp.sum(right_BxT * batch["weights"]),
        "weight": jnp.sum(batch["weights"]),
        "right_by_prefix": jnp.einsum("bt,btp->p", right_BxT, weights_BxTxP),
        "weight_by_prefix": weights_BxTxP.sum(axis=(0, 1)),
    }


def _visible(model: decoder.Decoder, batch: Batch) -> Visibility:
    return Visibility(batch["segments"], batch["prefix"] if model.config.prefix_lm else None)
