"""GLoRe on GSM8K from Llama 3 8B; all else is in configs/gsm8k.py.

hf download meta-llama/Meta-Llama-3-8B --local-dir models/Meta-Llama-3-8B
glore check --config=configs/gsm8k_llama3_8b.py
glore run --config=configs/gsm8k_llama3_8b.py --workdir=runs/gsm8k_llama3_8b

model     8.0 billion parameters, a vocabulary of 128,256
memory    120 GiB on every device in training, before activations
machine   not run yet
"""

from gsm8k import get_config as gsm8k_config
from gsm8k import trainings
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    config = gsm8k_config(variant)
    config.base.path = "models/Meta-Llama-3-8B"
    for settings in trainings(config):
        settings.rows = 8  # the logits of a large vocabulary take room
    return config
