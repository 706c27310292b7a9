"""Makes the base model and the tokenizer that the package ships, from nothing.

glore run --config=configs/arithmetic_base.py --workdir=runs/base

machine   2 cores
wall time 20 minutes
result    runs/base/base_model: model.safetensors (2 MB), tokenizer.model, card.json
"""

from typing import Any

from ml_collections import ConfigDict

from glore_jax.errors import InputError


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise InputError(f"configs/arithmetic_base.py has no variant {variant!r}; there is :smoke")
    train = {
        "epochs": 0.0,
        "optimizer": "muon",
        "warmup": 0.03,
        "weight_decay": 0.0,
        "clip": 1.0,
        "checkpoint_seconds": 120,
    }
    config: Any = ConfigDict(
        {
            "recipe": "base",
            "seed": 0,
            "devices": 2,
            "dev": 400,  # problems that the result is measured on
            "vocabulary": 768,
            "train_dtype": "bfloat16",
            "model": {
                "d_model": 128,
                "num_layers": 4,
                "num_heads": 4,
                "num_kv_heads": 2,
                "head_dim": 32,
                "d_ff": 384,
                "prefix_lm": True,  # the question is read in both directions; False: causally
            },
            # corpus: which documents (added to the seed); revised_share: documents with a first attempt;
            # step_weights: relative frequency of 2, 3, ... 8 steps
            "pretrain_short": {
                "corpus": 0,
                "documents": 120_000,
                "step_weights": (5, 5, 4, 3, 2, 1, 1),
                "revised_share": 0.12,
                "train": {"steps": 1100, "rows": 40, "row_length": 208, "learning_rate": 0.02, **train},
            },
            "pretrain_long": {
                "corpus": 1,
                "documents": 26_000,
                "step_weights": (4, 4, 3, 2, 2, 1, 1),
                "revised_share": 0.5,
                "train": {"steps": 200, "rows": 20, "row_length": 416, "learning_rate": 0.01, **train},
            },
            "sampling": {
                "slots": 128,
                "sources": 32,
                "chunk": 16,
                "buckets": (96, 128, 192),
                "max_new_tokens": 176,
            },
        }
    )
    if variant == "smoke":
        config.dev = 32
        for name in ("pretrain_short", "pretrain_long"):
            config[name].documents = 400
            config[name].train.steps = 3
    return config
