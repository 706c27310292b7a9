"""Every stage on a few real rows of GSM8K, with a published tokenizer and a tiny random model: does the way work?

python -c "from glore_jax.models import random_folder; \
    random_folder.write('runs/tiny_base', tokenizer='FOLDER', d_model=64, num_layers=2, head_dim=16, d_ff=192)"
glore run --config=configs/gsm8k_tiny.py --workdir=runs/gsm8k_tiny --config.base.path=runs/tiny_base

FOLDER is any that holds the tokenizer of a published model. The student starts from random weights and has eight
problems to learn from: it learns these by heart, which is all that it can. Accuracies on dev and test are those of
guessing; the run shows that every stage does its work, and no more.

machine   2 cores that do other work too
wall time 4 min 33 s, 2 and a half minutes of processor time
result    right in 50 % of its traces of train, in none of 4 dev and 4 test problems (tokenizer of Mistral 7B)
"""

from typing import Any

from gsm8k import get_config as gsm8k_config
from ml_collections import ConfigDict

from glore_jax.errors import InputError


def get_config(variant: str = "") -> ConfigDict:
    if variant:
        raise InputError(f"configs/gsm8k_tiny.py has no variants; leave out {':' + variant!r}")
    config: Any = gsm8k_config()
    config.devices = 1
    config.task.update({"train": 8, "dev": 4, "test": 4})
    config.sampling.update(
        {"dtype": "float32", "slots": 16, "sources": 4, "buckets": (128, 288), "max_new_tokens": 128}
    )
    by_heart = {"steps": 80, "rows": 2, "row_length": 384, "optimizer": "muon", "learning_rate": 0.02}
    by_heart |= {"scan": False, "remat": "none"}
    config.sft.train.update(by_heart)
    config.expert_iteration.update({"rounds": 1, "samples": 4})
    config.expert_iteration.train.update(by_heart)
    config.labels.rollouts = 2
    config.orm.train.update({**by_heart, "steps": 6})
    config.sorm.train.update({**by_heart, "steps": 6})
    config.refiner.train.update({**by_heart, "steps": 6, "row_length": 512})
    config.evaluation.samples = 3
    return config
