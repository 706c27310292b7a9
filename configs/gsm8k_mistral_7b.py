"""GLoRe on GSM8K from Mistral 7B; all else is in configs/gsm8k.py.

hf download mistralai/Mistral-7B-v0.1 --local-dir models/Mistral-7B-v0.1
glore check --config=configs/gsm8k_mistral_7b.py
glore run --config=configs/gsm8k_mistral_7b.py --workdir=runs/gsm8k_mistral_7b

model     7.2 billion parameters, a vocabulary of 32,000
memory    108 GiB on every device in training, before activations
machine   not run yet
"""

from gsm8k import get_config as gsm8k_config
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    config = gsm8k_config(variant)
    config.base.path = "models/Mistral-7B-v0.1"
    return config
