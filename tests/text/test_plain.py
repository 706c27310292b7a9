"""Plain text: as transformers would hand it to a published model, and as a run's models have learnt to read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import vocabularies
from handmade import tokenizer as own

from glore_jax.errors import InputError
from glore_jax.text import formats, pretrained
from glore_jax.text.plain import OfRun, Published

TEXT = "Ann has 3 nuts.\nBen has  4.\n\nHow many? "


@pytest.mark.parametrize("name", ["byte_level", "metaspace", "sentencepiece"])
def test_published_text_comes_back_in_one_piece(tmp_path: Path, name: str):
    plain = pretrained.load_plain(vocabularies.make(name, tmp_path))
    assert isinstance(plain, Published)
    ids = plain.encode(TEXT)
    assert plain.encode(TEXT, opened=False) == ids[-len(plain.encode(TEXT, opened=False)) :]
    assert plain.decode([*ids, plain.eos]) == TEXT
    assert ids[0] == plain.first or name == "byte_level"  # which puts nothing in front of a text


def test_special_tokens_are_meant_where_they_are_spelled_out(tmp_path: Path):
    plain = pretrained.load_plain(vocabularies.make("metaspace", tmp_path))
    assert plain.encode("<s>Ann</s>") == [plain.first, *plain.encode("Ann", opened=False), plain.eos]  # not two <s>
    assert plain.decode(plain.encode("<s>Ann</s>")) == "Ann"


@pytest.mark.parametrize(("named", "first"), [("<s>", "<s>"), (None, "</s>")])
def test_a_text_without_a_first_token_is_conditioned_on_the_end(tmp_path: Path, named: str | None, first: str):
    folder = vocabularies.make("byte_level", tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": named}))
    (folder / "config.json").write_text(json.dumps({"bos_token_id": 3}))  # what the tokenizer says goes before
    plain = pretrained.load_plain(folder)
    assert isinstance(plain, Published)
    assert plain.first == plain.vocabulary.id_of(first)


@pytest.mark.parametrize("kind", ["own", "byte_level"])
def test_a_run_reads_text_as_its_prompts_and_solutions(tmp_path: Path, kind: str):
    made = own() if kind == "own" else pretrained.load(vocabularies.make("byte_level", tmp_path))
    folder = tmp_path / "run"
    folder.mkdir()
    made.save(folder)
    plain = pretrained.load_plain(folder)
    assert isinstance(plain, OfRun)
    steps = ["Ben = 3 + 4: <<3+4=7>> Ben 7", "#### 7"]
    tokens, _ = formats.encode_solution(made, steps)
    question = "Ann has 3 nuts. How many?"
    whole = [*formats.encode_prompt(made, question), *tokens]
    assert [*plain.encode("\n".join([question, *steps, ""])), plain.eos] == whole
    assert plain.decode(tokens) == "\n".join([*steps, ""])


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="no tokenizer there"):
        pretrained.load_plain(tmp_path)
