"""A model, a tokenizer and settings small enough for tests."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.sampling.engine import Engine

VOCAB, EOS, PAD = 64, 2, 0


def decoder_config(**changes: Any) -> DecoderConfig:
    sizes = {"d_model": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "d_ff": 24}
    return DecoderConfig(**({"vocab_size": VOCAB} | sizes | changes))


@functools.cache
def random_decoder(vocab_size: int = VOCAB, seed: int = 0) -> tuple[Decoder, Any]:
    """A decoder and random weights, large enough that its choices differ from context to context."""
    model = Decoder(decoder_config(vocab_size=vocab_size))
    params = decoder.init(model, jax.random.key(seed))
    return model, jax.tree.map(lambda x: np.asarray(3.0 * x if x.ndim > 1 else x), params)


def sampling(**changes: Any) -> ConfigDict:
    settings = {"dtype": "float32", "weights": "same", "cache": "same"}
    settings |= {"slots": 4, "sources": 2, "chunk": 3, "buckets": (8, 12), "max_new_tokens": 10}
    return ConfigDict(settings | changes)


def engine(prefix_lm: bool = False, seed: int = 0, **changes: Any) -> Engine:
    model, params = random_decoder(seed=seed)
    model = Decoder(dataclasses.replace(model.config, prefix_lm=prefix_lm))
    return Engine(model, params, sampling(**changes), EOS, PAD)


def training(**changes: Any) -> ConfigDict:
    settings = {
        "steps": 6, "epochs": 0.0, "rows": 2, "row_length": 16, "optimizer": "adamw", "learning_rate": 0.01,
        "warmup": 0.1, "weight_decay": 0.0, "clip": 1.0, "checkpoint_seconds": 1000, "checkpoints": 2,
        "on_bad_step": "stop", "keep": "last", "dev_share": 0.0,
        "micro_batches": 1, "moments": "float32", "scan": False, "remat": "none",
    }  # fmt: skip
    return ConfigDict(settings | changes)


class Cut(Exception):
    """A training that was ended by `cut_at`."""


def cut_at(step: int) -> Any:
    """An `advance` that ends the training at a step, as a kill would."""
    seen = 0

    def advance(tokens: int, metrics: dict[str, float]) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            raise Cut

    return advance
