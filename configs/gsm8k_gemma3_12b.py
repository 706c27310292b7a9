"""GLoRe on GSM8K from Gemma 3 12B, its text part; all else is in configs/gsm8k.py.

What is published as google/gemma-3-12b-pt also reads images (Gemma3ForConditionalGeneration), which the decoder here
does not. Save its text part with transformers, as Gemma3ForCausalLM, and the tokenizer with it, to
models/gemma-3-12b-text.

glore check --config=configs/gsm8k_gemma3_12b.py
glore run --config=configs/gsm8k_gemma3_12b.py --workdir=runs/gsm8k_gemma3_12b

model     11.8 billion parameters, a vocabulary of 262,208
memory    175 GiB on every device in training, before activations
machine   not run yet
"""

from gsm8k import get_config as gsm8k_config
from gsm8k import trainings
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    config = gsm8k_config(variant)
    config.base.path = "models/gemma-3-12b-text"
    for settings in trainings(config):
        settings.rows = 8  # the logits of a large vocabulary take room
    return config
