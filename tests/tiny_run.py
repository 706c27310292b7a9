"""A finished run of random models, as far as answering questions needs one: made in a moment, knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import tiny
from handmade import tokenizer
from ml_collections import ConfigDict

from glore_jax import configuration, files, workfolder
from glore_jax.models import value_head
from glore_jax.stages import artifacts

QUESTIONS = [
    "Ann has 2 nuts. How many with 3 more?",
    "Ben has 4.",
    "What is 3*4?",
    "Ben has 4.",
    "Who?",
    "Eve has 9 nuts.",
]
THRESHOLDS = {"sorm_where": 0.5, "rank_margin": 0.02}
_MODELS = ("expert_iteration", "orm", "sorm", "global_refiner", "local_refiner")


def params(seed: int, values: bool) -> Any:
    """Of a random decoder of the tokenizer's vocabulary, under a head of large weights where it is a value model."""
    model, decoder = tiny.random_decoder(tokenizer().vocab_size, seed)
    head = jax.tree.map(lambda x: 10 * x, value_head.init(jax.random.key(seed), model.config.d_model))
    return {"decoder": decoder} | ({"value_head": head} if values else {})


def make(workdir: Path) -> Path:
    """A work folder with the stages that the system reads."""
    sampling = tiny.sampling(slots=4, chunk=4, buckets=(32, 64), max_new_tokens=12)
    settings = {"task": {"name": "jsonl"}, "evaluation": {"ranker": "orm"}}
    config = ConfigDict({"seed": 0, "sampling": sampling} | settings)
    for seed, stage in enumerate(("base", "tuning", *_MODELS)):
        (workdir / stage).mkdir(parents=True)
        if stage == "base":
            tokenizer().save(workdir / stage)
        elif stage == "tuning":
            files.write_json(workdir / stage / "thresholds.json", THRESHOLDS)
        else:
            model, _ = tiny.random_decoder(tokenizer().vocab_size)
            artifacts.write_model(workdir / stage, params(seed, "orm" in stage), model.config)
        made = {"stage": stage, "config": "", "inputs": {}, "version": "", "counts": {}, "seconds": 0.0}
        files.write_json(workdir / stage / files.MANIFEST, made | {"files": workfolder.describe(workdir / stage)})
    files.write_text(workdir / "config.json", configuration.to_json(config.to_dict()))
    return workdir
