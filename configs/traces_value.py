"""An ORM and a SORM from solutions that others wrote and judged, and what they are worth on other questions.

glore train --config=configs/traces_value.py --workdir=runs/values --config.task.when=A --config.task.where=B

A and B are files of judged solutions: docs/scoring.md has their formats, what the stages do, and the figures of a run.

variant   what it is for
(none)    a decoder of 377,000 parameters, made from the solutions themselves
smoke     does everything run?

machine   2 cores of an EPYC
wall time 5 minutes, on 7,831 and 1,428 train solutions
result    an ORM that does not beat "the shorter solution is right", a SORM that does not beat a guess (docs/scoring.md)

With --config.base.path=FOLDER the value models start from a published model (docs/base_model.md). Set rows,
epochs and learning rates to what the model takes then; model, vocabulary and pretrain have no say.
"""

from typing import Any

from arithmetic import sharding, training
from arithmetic_base import get_config as base_config
from ml_collections import ConfigDict

from glore_jax.errors import InputError


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise InputError(f"configs/traces_value.py has no variant {variant!r}; there is :smoke")
    config: Any = ConfigDict(
        {
            "recipe": "traces_value",
            "seed": 0,
            "devices": 2,
            "sharding": sharding(),
            "task": {
                "when": (),  # files whose rows say whether the final answer is right
                "where": (),  # files whose rows say which step is the first false one
            },
            "base": {
                "path": "",  # folder of a base model; "" makes one, of the good solutions of train
                "adapter": "",  # folder of a LoRA adapter for it, as PEFT saves them; "" for none
                "marks": "tokens",
                "chat": False,
            },
            "vocabulary": 1024,  # of the tokenizer that is made
            "model": base_config().model,  # of the shape of the base model of the embedded task
            "pretrain": {"train": training(epochs=0.5, rows=8, row_length=512)},
            "train_dtype": "bfloat16",
            "value": {
                "init": "base",
                # Of free text a small model expects too little: hundreds of nats a solution would drown the rest.
                "surprise": False,
                "language": 0.002,  # there are some 50 tokens to a label, of 2 to 3 nats each
            },
            "labels": {"balance": True},  # as many right as wrong step labels at each prefix length, as in the paper
            "orm": {"train": training(epochs=0.3, rows=8, row_length=512, learning_rate=0.003)},
            "sorm": {"train": training(epochs=0.5, rows=8, row_length=512, learning_rate=0.0015)},
        }
    )
    if variant == "smoke":
        config.vocabulary = 400
        config.model.update({"d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 48})
        for settings in (config.pretrain.train, config.orm.train, config.sorm.train):
            settings.update({"steps": 4, "rows": 2, "row_length": 256})
    return config
