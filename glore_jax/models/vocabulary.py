"""Room for new tokens: rows of the embedding and the unembedding."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.models.decoder import DecoderConfig

TABLES = ("embedding", "unembedding")


def missing_rows(config: DecoderConfig, vocab_size: int) -> int:
    """By how many rows the tables must grow for `vocab_size` ids; published models often have rows to spare."""
    return max(0, vocab_size - config.vocab_size)


def grown(config: DecoderConfig, vocab_size: int) -> DecoderConfig:
    """A decoder with room for `vocab_size` ids at least."""
    return dataclasses.replace(config, vocab_size=config.vocab_size + missing_rows(config, vocab_size))


def grow(config: DecoderConfig, params: Any, trained: int, vocab_size: int) -> tuple[DecoderConfig, Any]:
    """A decoder with room for `vocab_size` ids, of which the first `trained` keep their rows.

    A new row is the mean of the trained ones, so that a new token's logit is the mean of the others', which a trained
    model seldom writes; a random row's can be anything. Rows from `trained` on that the model has to spare and that
    the new ids take become means too, as nothing has trained them.

    Args:
      params: `{"embedding": [V, D], "unembedding": [V, D], ...}`, the latter unless the embedding is tied.
      trained: number of ids of the model's own vocabulary.
    """
    if not 0 < trained <= config.vocab_size:
        raise ValueError(f"trained={trained} rows, of a model with {config.vocab_size}")
    bigger = grown(config, vocab_size)
    tables = {n: _grown(params[n], trained, vocab_size, bigger.vocab_size) for n in TABLES if n in params}
    return bigger, {**params, **tables}


def _grown(table_VxD: jax.Array, trained: int, vocab_size: int, size: int) -> jax.Array:
    mean_D = jnp.mean(table_VxD[:trained].astype(jnp.float32), axis=0).astype(table_VxD.dtype)
    more = jnp.broadcast_to(mean_D, (size - table_VxD.shape[0], table_VxD.shape[1]))
    return jnp.concatenate([table_VxD, more]).at[trained:vocab_size].set(mean_D)
