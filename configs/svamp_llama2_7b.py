"""GLoRe on SVAMP from Llama 2 7B; all else is in configs/svamp.py.

hf download meta-llama/Llama-2-7b-hf --local-dir models/Llama-2-7b-hf
glore check --config=configs/svamp_llama2_7b.py
glore run --config=configs/svamp_llama2_7b.py --workdir=runs/svamp_llama2_7b

model     6.7 billion parameters, a vocabulary of 32,000
memory    100 GiB on every device in training, before activations
machine   not run yet
"""

from ml_collections import ConfigDict
from svamp import get_config as svamp_config


def get_config(variant: str = "") -> ConfigDict:
    config = svamp_config(variant)
    config.base.path = "models/Llama-2-7b-hf"
    return config
