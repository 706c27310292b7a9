"""What the start of `models/recall_init.py` is worth: a plain test of recall, from it and from a random start.

python benchmarks/recall_init.py

A story names three to seven persons, each with a verb, a digit and a thing; then the persons come again in another
order, and the model tells each one's digit. Prints JSON: the loss [nats a token] every 50 steps from either start.
About three minutes on two cores. Losses to compare with: 0.25 where every digit is known, 0.5 where it is guessed
among the digits of the story.
"""

from __future__ import annotations

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from glore_jax.method import base_model
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.training import loop, losses
from glore_jax.training.batches import Example, language_example

NAMES, DIGITS, VERBS, THINGS, PERIOD, IS, LINE_END = 10, 40, 60, 70, 5, 6, 1  # first ids of each group


def story(rng: np.random.Generator) -> Example:
    count = int(rng.integers(3, 8))
    names = NAMES + rng.choice(24, count, replace=False)
    digits = DIGITS + rng.integers(0, 10, count)
    source, target = [], []
    for name, digit in zip(names, digits, strict=True):
        source += [name, VERBS + rng.integers(0, 6), digit, THINGS + rng.integers(0, 16), PERIOD]
    for i in rng.permutation(count):
        target += [names[i], IS, digits[i], LINE_END]
    return language_example([int(t) for t in (*source, LINE_END)], [int(t) for t in target], prefix_lm=True)


def main() -> None:
    rng = np.random.default_rng(0)
    examples = [story(rng) for _ in range(40_000)]
    config = DecoderConfig(vocab_size=96, d_model=64, num_heads=4, num_kv_heads=2, head_dim=32, d_ff=192)
    model = Decoder(config)
    tokens = jnp.zeros((1, 8), jnp.int32)
    random = nn.meta.unbox(model.init(jax.random.key(0), tokens, tokens, jnp.ones((1, 8, 8), bool))["params"])
    settings = ConfigDict({
        "optimizer": "muon", "learning_rate": 0.02, "warmup": 0.03, "weight_decay": 0.0, "clip": 1.0,
        "steps": 200, "epochs": 0, "rows": 32, "row_length": 128, "checkpoint_seconds": 1e9,
    })  # fmt: skip
    found = {}
    for name, params in (("random_start", random), ("recall_start", base_model.init(model, 0))):
        trained = loop.train(model, {"decoder": params}, losses.language, examples, settings, 0)
        points = {point["step"]: round(point["loss"], 3) for point in trained.curve}
        found[name] = {step: points[step] for step in (48, 100, 148, 200) if step in points}
    last = max(found["random_start"])
    found["excess_over_knowing_ratio"] = round(
        (found["random_start"][last] - 0.25) / (found["recall_start"][last] - 0.25), 2
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
