"""GLoRe on GSM8K from Qwen 3 8B, the base model; all else is in configs/gsm8k.py.

hf download Qwen/Qwen3-8B-Base --local-dir models/Qwen3-8B-Base
glore check --config=configs/gsm8k_qwen3_8b.py
glore run --config=configs/gsm8k_qwen3_8b.py --workdir=runs/gsm8k_qwen3_8b

model     8.2 billion parameters, a vocabulary of 151,936
memory    122 GiB on every device in training, before activations
machine   not run yet
"""

from gsm8k import get_config as gsm8k_config
from gsm8k import trainings
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    config = gsm8k_config(variant)
    config.base.path = "models/Qwen3-8B-Base"
    for settings in trainings(config):
        settings.rows = 8  # the logits of a large vocabulary take room
    return config
