"""A random model's folder is one that loads, with the tokenizer that was given."""

from __future__ import annotations

from pathlib import Path

import pytest
import vocabularies

from glore_jax.errors import InputError
from glore_jax.models import huggingface, random_folder
from glore_jax.text import pretrained

SIZES = {"d_model": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "d_ff": 16}


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
def test_it_loads_with_its_tokenizer(tmp_path: Path, name: str):
    (tmp_path / "given").mkdir()
    given = vocabularies.make(name, tmp_path / "given")
    source = given / "tokenizer.model" if name == "sentencepiece" else given
    folder = random_folder.write(tmp_path / "made", source, **SIZES)
    model, params = huggingface.load(folder)
    tokenizer = pretrained.load(folder)
    assert params["embedding"].shape == (tokenizer.vocab_size - tokenizer.added, 16)
    assert model.decoder.config.num_layers == 1
    with pytest.raises(InputError):
        random_folder.write(tmp_path / "made", source, **SIZES)  # taken


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="nowhere: no such file or folder; expected a tokenizer"):
        random_folder.write(tmp_path / "made", tmp_path / "nowhere")
