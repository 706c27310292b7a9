"""GLoRe on GSM8K from Qwen 2.5 7B; all else is in configs/gsm8k.py.

hf download Qwen/Qwen2.5-7B --local-dir models/Qwen2.5-7B
glore check --config=configs/gsm8k_qwen2_5_7b.py
glore run --config=configs/gsm8k_qwen2_5_7b.py --workdir=runs/gsm8k_qwen2_5_7b

model     7.6 billion parameters, a vocabulary of 152,064
memory    113 GiB on every device in training, before activations
machine   not run yet
"""

from gsm8k import get_config as gsm8k_config
from gsm8k import trainings
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    config = gsm8k_config(variant)
    config.base.path = "models/Qwen2.5-7B"
    for settings in trainings(config):
        settings.rows = 8  # the logits of a large vocabulary take room
    return config
