"""The stage `base` on folders of published models: each family comes through, what cannot be used is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import weakref
from pathlib import Path
from typing import Any

import checkpoints as folders
import handmade
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vocabularies
from ml_collections import ConfigDict

from glore_jax import configuration, files, pipeline
from glore_jax.errors import InputError
from glore_jax.models import adapters, huggingface, lora, tensors
from glore_jax.models.decoder import CausalLM, Decoder
from glore_jax.models.lora import LoraConfig
from glore_jax.pipeline import Stage, StageContext
from glore_jax.records import Problem
from glore_jax.stages import artifacts, recipes, taking_base
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import formats, pretrained
from glore_jax.text.tokenizers import BAD, Tokenizer

ROOT = Path(__file__).parents[2]
PROBLEMS = [make_problem(0, "train", i, handmade.EVEN_WEIGHTS) for i in range(3)]
ROWS = 640  # of the embedding: some to spare, but too few for all marks of the larger vocabularies


def problems(context: StageContext) -> dict[str, Any]:
    for split in artifacts.SPLITS:
        files.write_table(context.folder / f"{split}.parquet", PROBLEMS, Problem)
    return {}


STAGES = (Stage("problems", (), problems, "handed in", ()), recipes.GLORE[1])


def write_folder(folder: Path, family: str = "llama2", tokenizer: str = "byte_level", rows: int = ROWS) -> Path:
    folders.write(folder, folders.config(family) | {"vocab_size": rows})
    return vocabularies.make(tokenizer, folder)


def config_of(folder: Path, marks: str = "tokens", chat: bool = False, adapter: Path | str = "") -> ConfigDict:
    config: Any = configuration.load(f"{ROOT / 'configs' / 'arithmetic.py'}:smoke")
    config.base.update({"path": str(folder), "adapter": str(adapter), "marks": marks, "chat": chat})
    config.sampling.update({"buckets": (900,), "max_new_tokens": 100})
    return config


def take(folder: Path, workdir: Path, *more: Any, **keys: Any) -> tuple[CausalLM, Any, Tokenizer]:
    """What later stages read of a base model."""
    pipeline.run(config_of(folder, *more, **keys), workdir, STAGES)
    decoder, params = artifacts.read_model(workdir / "base", "float32")
    return CausalLM(decoder), params["decoder"], pretrained.reopen(workdir / "base")


@pytest.mark.parametrize("family", folders.FAMILIES)
def test_every_family_computes_the_same_in_the_work_folder(tmp_path: Path, family: str):
    folder = write_folder(tmp_path / "given", family)
    model, params, tokenizer = take(folder, tmp_path / "run")
    given, given_params = huggingface.load(folder, "float32")
    assert model.decoder.config == dataclasses.replace(given.decoder.config, dtype="float32")
    assert not model.decoder.config.prefix_lm
    tokens = jnp.asarray([formats.encode_prompt(tokenizer, PROBLEMS[0].question)[:24]], jnp.int32)
    expected = given.apply({"params": given_params}, tokens)
    trained = tokenizer.vocab_size - tokenizer.added
    np.testing.assert_array_equal(
        np.asarray(model.apply({"params": params}, tokens))[..., :trained], np.asarray(expected)[..., :trained]
    )


@pytest.mark.parametrize("name", ["byte_level", "metaspace", "sentencepiece"])
@pytest.mark.parametrize("marks", pretrained.MARK_STYLES)
def test_tokenizers_keep_their_files_and_marks(tmp_path: Path, name: str, marks: str):
    folder = write_folder(tmp_path / "given", tokenizer=name)
    tokenizer = pretrained.load(folder, marks)
    rows = tokenizer.vocab_size - tokenizer.added
    folder = write_folder(tmp_path / "exact", tokenizer=name, rows=rows)
    model, params, again = take(folder, tmp_path / "run", marks)
    file = "tokenizer.model" if name == "sentencepiece" else "tokenizer.json"
    assert (tmp_path / "run" / "base" / file).read_bytes() == (folder / file).read_bytes()
    for part in ("vocab_size", "added", "eos", "pad", "marks", "opening", "closing", "line_ends"):
        assert getattr(again, part) == getattr(tokenizer, part), part
    assert model.decoder.config.vocab_size == params["embedding"].shape[0] == again.vocab_size
    assert again.vocab_size - rows == (13 if marks == "tokens" else 0)
    assert len(again.marks[BAD]) == 1 or marks == "text"
    described = taking_base.describe(config_of(folder, marks), tokenizer)
    assert dataclasses.replace(described, dtype="float32") == model.decoder.config

    # What was written is itself a base model, with the marks that it has.
    _, twice, _ = take(tmp_path / "run" / "base", tmp_path / "again", marks)
    np.testing.assert_array_equal(np.asarray(params["embedding"]), np.asarray(twice["embedding"]))
    other = next(style for style in pretrained.MARK_STYLES if style != marks)
    with pytest.raises(InputError, match=f"saved with marks='{marks}'"):
        take(tmp_path / "run" / "base", tmp_path / "third", other)


def test_later_stages_put_questions_as_the_chat_template_does(tmp_path: Path):
    folder = write_folder(tmp_path / "given")
    _, _, plain = take(folder, tmp_path / "plain")
    _, _, again = take(folder, tmp_path / "chat", chat=True)
    template = pretrained.load(folder, with_chat=True)
    assert formats.encode_prompt(again, "Ann?") == formats.encode_prompt(template, "Ann?")
    assert "<|user|>" in again.vocabulary.decode(again.opening)
    assert formats.encode_prompt(plain, "Ann?") == [*plain.encode("Ann?"), plain.step_end]


def test_half_precision_stays_half_precision(tmp_path: Path):
    raw = folders.config("llama2") | {"vocab_size": ROWS}
    half = {name: array.astype(jnp.bfloat16) for name, array in folders.weights(raw).items()}
    folders.write(tmp_path / "given", raw, half)
    vocabularies.make("byte_level", tmp_path / "given")
    take(tmp_path / "given", tmp_path / "run")
    sizes = [(tmp_path / place / "model.safetensors").stat().st_size for place in ("given", "run/base")]
    assert abs(sizes[0] - sizes[1]) < 5000  # the headers differ


@pytest.mark.parametrize("given", ["published", "published, with an adapter", "of a run"])
def test_no_more_than_a_tensor_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str):
    folder, place = write_folder(tmp_path / "given"), ""
    if given == "of a run":
        take(folder, tmp_path / "first")
        folder = tmp_path / "first" / "base"
    elif given != "published":
        place, _ = write_adapter(tmp_path / "adapter", *huggingface.load(folder))
    sizes = [where.shape for where in tensors.find(folder).values()]
    read, before = tensors.read, sum(x.nbytes for x in jax.live_arrays())
    seen: list[weakref.ref[np.ndarray]] = []
    held: list[int] = []

    def watched(where: tensors.Tensor, *how: Any) -> tuple[np.ndarray, bool]:
        here = sum(array.nbytes for ref in seen if (array := ref()) is not None)
        held.append(here + sum(x.nbytes for x in jax.live_arrays()) - before)
        found = read(where, *how)
        if where.path.parent == folder:
            seen.append(weakref.ref(found[0]))
        return found

    monkeypatch.setattr(tensors, "read", watched)
    take(folder, tmp_path / "run", adapter=place)
    assert len(seen) == len(sizes)
    of_adapter = 0 if not place else (Path(place) / adapters.WEIGHTS).stat().st_size
    assert max(held) <= of_adapter + 2 * 4 * max(map(math.prod, sizes)) < 4 * sum(map(math.prod, sizes))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path):
    raw = folders.config("llama2") | {"vocab_size": ROWS}
    weights = folders.weights(raw)
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    folders.write(tmp_path / "given", raw, weights)
    vocabularies.make("byte_level", tmp_path / "given")
    with pytest.raises(InputError, match=r"(?s)given: cannot be used .*layers\.1\.mlp\.up_proj\.weight has NaNs"):
        take(tmp_path / "given", tmp_path / "run")
    assert not (tmp_path / "run" / "base").exists()


def spoil(folder: Path, fault: str) -> None:
    raw = json.loads((folder / "config.json").read_text())
    if fault == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif fault == "no end token":
        (folder / "tokenizer_config.json").unlink()
    elif fault == "unknown end token":
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    elif fault == "pickled":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif fault == "no config":
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "config.json").unlink()
    elif fault == "value model":
        huggingface_value(folder, raw)
    elif fault == "small embedding":
        folders.write(folder, raw | {"vocab_size": 300})
    elif fault == "small embedding, SentencePiece":
        (folder / "tokenizer.json").unlink()
        vocabularies.make("sentencepiece", folder)
        folders.write(folder, raw | {"vocab_size": 300, "eos_token_id": 2})


def huggingface_value(folder: Path, raw: dict[str, Any]) -> None:
    raw = raw | {"architectures": ["LlamaForTokenClassification"]}
    tensors = folders.weights(raw)
    tensors.pop("lm_head.weight")
    tensors |= {"score.weight": np.zeros((2, raw["hidden_size"]), np.float32), "score.bias": np.zeros(2, np.float32)}
    folders.write(folder, raw, tensors)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no tokenizer", r"no tokenizer there; looked for tokenizer\.json, tokenizer\.model"),
        ("no end token", "not said which token ends a text; looked for eos_token"),
        ("unknown end token", "the eos_token '<end>' is not in the vocabulary"),
        ("pickled", r"only pickled weights \(pytorch_model\.bin\), .*convert: python -c"),
        ("no config", r"neither model\.safetensors nor .*index\.json"),
        ("value model", "a value model; base.path takes a language model"),
        ("small embedding", r"tokenizer\.json has token \d+, the embedding 300 rows"),
        ("small embedding, SentencePiece", r"tokenizer\.model has token \d+, the embedding 300 rows"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, fault: str, message: str):
    folder = write_folder(tmp_path / "given")
    spoil(folder, fault)
    with pytest.raises(InputError, match=message):
        take(folder, tmp_path / "run")


def test_other_keys_and_places_are_refused(tmp_path: Path):
    folder = write_folder(tmp_path / "given")
    with pytest.raises(InputError, match="marks='words': expected one of tokens, text"):
        take(folder, tmp_path / "a", "words")
    with pytest.raises(InputError, match=r"base\.path=.*nowhere: no such folder"):
        take(tmp_path / "nowhere", tmp_path / "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no tokenizer there"):
        take(tmp_path / "empty", tmp_path / "c")


def test_new_weights_make_the_stage_stale(tmp_path: Path):
    folder = write_folder(tmp_path / "given")
    take(folder, tmp_path / "run")
    folders.write(folder, raw := folders.config("llama2") | {"vocab_size": ROWS}, folders.weights(raw, seed=1))
    states = {s.stage.name: s.state for s in pipeline.states(config_of(folder), tmp_path / "run", STAGES)}
    assert states == {"problems": "done", "base": "stale"}


LORA = LoraConfig(rank=3, alpha=6.0, targets=lora.LINEAR)


def write_adapter(folder: Path, model: CausalLM, params: Any, seed: int = 0) -> tuple[Path, Any]:
    """A random adapter on every linear layer."""
    rng, shapes = np.random.default_rng(seed), jax.eval_shape(lambda: lora.init(jax.random.key(0), params, LORA))
    adapter = jax.tree.map(lambda x: (0.2 * rng.normal(size=x.shape)).astype(np.float32), shapes)
    adapters.save(LORA, adapter, folder, model)
    return folder, adapter


def logits(model: CausalLM, params: Any, tokenizer: Tokenizer) -> np.ndarray:
    tokens = jnp.asarray([formats.encode_prompt(tokenizer, PROBLEMS[0].question)[:24]], jnp.int32)
    return np.asarray(model.apply({"params": params}, tokens))[..., : tokenizer.vocab_size - tokenizer.added]


@pytest.mark.parametrize("marks", pretrained.MARK_STYLES)
def test_an_adapter_becomes_part_of_the_base(tmp_path: Path, marks: str):
    folder = write_folder(tmp_path / "given", "llama3")
    given, params = huggingface.load(folder)
    place, adapter = write_adapter(tmp_path / "adapter", given, params)
    model, found, tokenizer = take(folder, tmp_path / "run", marks, adapter=place)
    expected = logits(given, lora.merge(params, adapter, LORA), tokenizer)
    np.testing.assert_array_equal(logits(model, found, tokenizer), expected)
    assert np.abs(logits(given, params, tokenizer) - expected).max() > 0.1

    # So it does where the base is a folder that a run made.
    own = CausalLM(Decoder(model.decoder.config))
    place, adapter = write_adapter(tmp_path / "second", own, found)
    _, again, _ = take(tmp_path / "run" / "base", tmp_path / "again", marks, adapter=place)
    jax.tree.map(np.testing.assert_array_equal, again, lora.merge(found, adapter, LORA))


def test_adapters_that_do_not_fit_are_refused_before_the_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, other = write_folder(tmp_path / "given", "llama3"), write_folder(tmp_path / "other", "qwen3")
    place, _ = write_adapter(tmp_path / "adapter", *huggingface.load(other))
    monkeypatch.setattr(huggingface, "load", None)
    tokenizer = taking_base.tokenizer_of(config_of(folder))
    taking_base.describe(config_of(other, adapter=place), tokenizer)
    refused = r"(?s)adapter: cannot be used as an adapter of this model:.*q_proj.lora_B.weight has shape \[64, 3\], exp"
    with pytest.raises(InputError, match=refused):
        taking_base.describe(config_of(folder, adapter=place), tokenizer)
    with pytest.raises(InputError, match=refused):
        take(folder, tmp_path / "run", adapter=place)
    with pytest.raises(InputError, match=r"base\.adapter=.*nowhere: no such folder; expected one with adapter_config"):
        take(folder, tmp_path / "run2", adapter=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"neither adapter_model\.safetensors nor"):
        take(folder, tmp_path / "run3", adapter=folder)


def test_a_new_adapter_makes_the_stage_stale(tmp_path: Path):
    folder = write_folder(tmp_path / "given")
    given = huggingface.load(folder)
    place, _ = write_adapter(tmp_path / "adapter", *given)
    take(folder, tmp_path / "run", adapter=place)
    again, _ = write_adapter(tmp_path / "again", *given, seed=1)
    (again / adapters.WEIGHTS).replace(place / adapters.WEIGHTS)
    found = pipeline.states(config_of(folder, adapter=place), tmp_path / "run", STAGES)
    assert {s.stage.name: s.state for s in found} == {"problems": "done", "base": "stale"}
