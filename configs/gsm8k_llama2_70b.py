"""GLoRe on GSM8K from Llama 2 70B; all else is in configs/gsm8k.py.

hf download meta-llama/Llama-2-70b-hf --local-dir models/Llama-2-70b-hf
glore check --config=configs/gsm8k_llama2_70b.py
glore run --config=configs/gsm8k_llama2_70b.py --workdir=runs/gsm8k_llama2_70b

model     69.0 billion parameters, a vocabulary of 32,000
memory    1028 GiB on every device in training, before activations
machine   not run yet
"""

from gsm8k import get_config as gsm8k_config
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    config = gsm8k_config(variant)
    config.base.path = "models/Llama-2-70b-hf"
    return config
