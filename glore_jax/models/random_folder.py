"""A tiny random language model as a Hugging Face folder: a stand-in for a published one where only the way counts.

    from glore_jax.models import random_folder

    random_folder.write("runs/tiny_base", tokenizer="FOLDER")

It has learnt nothing, so whatever a run makes of it comes from that run's own training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from glore_jax.errors import InputError
from glore_jax.models import decoder, huggingface
from glore_jax.models.decoder import CausalLM, Decoder, DecoderConfig
from glore_jax.text import pretrained
from glore_jax.text.vocabularies import SentencePiece


def write(folder: str | Path, tokenizer: str | Path, seed: int = 0, **fields: Any) -> Path:
    """Writes `config.json`, `model.safetensors` (float32) and the tokenizer of a random Llama.

    Args:
      folder: a new or empty one.
      tokenizer: the folder of a published model, or a SentencePiece file; it decides the size of the vocabulary.
      fields: of `DecoderConfig`, such as `d_model` and `num_layers`; its defaults make a model of under a million
        parameters beside the two tables of the vocabulary.

    Raises:
      InputError: the folder is taken, or there is no such tokenizer.
    """
    source = Path(tokenizer)
    if source.is_dir():
        found = pretrained.load(source)
        size = found.vocab_size - found.added
    elif source.is_file():
        size = SentencePiece(source).size
    else:
        raise InputError(f"{source}: no such file or folder; expected a tokenizer.model, or a published model's folder")
    model = Decoder(DecoderConfig(vocab_size=size, **fields))
    params = decoder.init(model, jax.random.key(seed))
    huggingface.save(CausalLM(model), params, folder, tokenizer=source)
    return Path(folder)
