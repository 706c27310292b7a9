"""Makes the base model and the tokenizer that the package ships, from nothing.

glore run --config=configs/arithmetic_base.py --workdir=runs/base

machine   2 cores
wall time 14 to 17 minutes
result    runs/base/base_model: model.safetensors (0.7 MB), tokenizer.model, card.json
"""

from typing import Any

from arithmetic import sharding
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
        "micro_batches": 1,
        "moments": "float32",
        "on_bad_step": "stop",
        "checkpoint_seconds": 120,
        "checkpoints": 2,
        "scan": False,
        "remat": "none",
    }
    config: Any = ConfigDict(
        {
            "recipe": "base",
            "seed": 0,
            "devices": 2,
            "sharding": sharding(),
            "dev": 400,  # problems that the result is measured on
            "vocabulary": 768,
            "train_dtype": "bfloat16",
            "model": {
                "d_model": 64,
                "num_layers": 4,
                "num_heads": 4,
                "num_kv_heads": 2,
                "head_dim": 32,
                "d_ff": 192,
                "rope_theta": 100_000.0,  # most of a head hardly turns within a text
                "prefix_lm": True,  # the question is read in both directions; False: causally
            },
            # corpus: which documents (added to the seed); step_weights: relative frequency of 2, 3, ... 8 steps, and of
            # as many people in notes; notes_share: documents that are notes; revised_share: of the others, those with
            # a first attempt
            "pretrain_notes": {
                "corpus": 0,
                "documents": 40_000,
                "step_weights": (2, 2, 2, 1, 1, 1, 1),
                "revised_share": 0.0,
                "notes_share": 1.0,
                "train": {"steps": 500, "rows": 30, "row_length": 256, "learning_rate": 0.01, **train},
            },
            "pretrain_short": {
                "corpus": 1,
                "documents": 24_000,
                "step_weights": (2, 2, 1, 1, 0, 0, 0),
                "revised_share": 0.0,
                "notes_share": 0.4,
                "train": {"steps": 300, "rows": 30, "row_length": 256, "learning_rate": 0.01, **train},
            },
            "pretrain_medium": {
                "corpus": 2,
                "documents": 18_000,
                "step_weights": (1, 1, 2, 3, 3, 3, 3),
                "revised_share": 0.0,
                "notes_share": 0.4,
                "train": {"steps": 400, "rows": 22, "row_length": 360, "learning_rate": 0.01, **train},
            },
            "pretrain_long": {
                "corpus": 3,
                "documents": 8_000,
                "step_weights": (1, 1, 2, 3, 3, 3, 3),
                "revised_share": 0.5,
                "notes_share": 0.0,
                "train": {"steps": 200, "rows": 14, "row_length": 608, "learning_rate": 0.01, **train},
            },
            "sampling": {
                "dtype": "float32",
                "weights": "same",
                "cache": "same",
                "slots": 128,
                "sources": 32,
                "chunk": 16,
                "buckets": (96, 128),
                "max_new_tokens": 288,
            },
        }
    )
    if variant == "smoke":
        config.dev = 32
        for name in ("pretrain_notes", "pretrain_short", "pretrain_medium", "pretrain_long"):
            config[name].documents = 400
            config[name].train.steps = 3
    return config
