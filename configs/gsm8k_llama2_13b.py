"""GLoRe on GSM8K from Llama 2 13B, the student of the paper's main figures; all else is in configs/gsm8k.py.

hf download meta-llama/Llama-2-13b-hf --local-dir models/Llama-2-13b-hf
glore check --config=configs/gsm8k_llama2_13b.py
glore run --config=configs/gsm8k_llama2_13b.py --workdir=runs/gsm8k_llama2_13b
glore compile --config=configs/gsm8k_llama2_13b.py:pod --stage=sft --topology=v5e:8x8

model     13.0 billion parameters, a vocabulary of 32,000
memory    194 GiB on every device in training, before activations
slice     v5e-64 with `:pod`: at most 5.4 of 15.75 GiB on each chip in a step of sft, as the TPU compiler plans it
machine   not run yet
"""

from gsm8k import get_config as gsm8k_config
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    config = gsm8k_config(variant)
    config.base.path = "models/Llama-2-13b-hf"
    return config
