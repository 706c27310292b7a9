"""`glore convert`: there and back without a bit changed, out of a run, and what is refused."""

from __future__ import annotations

import gc
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoints as folders
import handmade
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import vocabularies
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from tiny import decoder_config

from glore_jax import cli, files
from glore_jax.models import decoder, families, huggingface, orbax_folders, tensors, value_head
from glore_jax.models.decoder import Decoder
from glore_jax.models.value_head import ValueModel
from glore_jax.stages import artifacts, scoring
from glore_jax.text import pretrained

RNG = np.random.default_rng(5)


def convert(source: Path, target: Path) -> None:
    assert cli.main(["convert", str(source), str(target)]) == 0


def refusal(source: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a refused command says; it leaves nothing behind."""
    before = sorted(target.parent.rglob("*"))
    assert cli.main(["convert", str(source), str(target)]) == 2
    assert sorted(target.parent.rglob("*")) == before
    shown = capsys.readouterr()
    assert shown.out == ""
    return " ".join(shown.err.split())


def value_folder(folder: Path, family: str = "qwen2") -> Path:
    """A token classification folder, as this package writes it: the score of `wrong` is 0."""
    raw = folders.config(family)
    stem = raw["architectures"][0].removesuffix(families.CAUSAL)
    raw |= {"architectures": [stem + families.VALUE], "tie_word_embeddings": True}  # no unembedding beside a score
    score = {"score.weight": np.stack([np.zeros(32), RNG.normal(size=32)]), "score.bias": np.asarray([0.0, 0.5])}
    found = folders.weights(raw, dtype=jnp.bfloat16) | {k: v.astype(np.float32) for k, v in score.items()}
    return folders.write(folder, raw, found)


@pytest.mark.parametrize("family", folders.FAMILIES)
def test_a_language_model_comes_back_to_the_last_bit(family: str, tmp_path: Path):
    raw = folders.config(family) | {"eos_token_id": [7, 9], "bos_token_id": 1}
    found = folders.weights(raw, dtype=jnp.bfloat16)
    found["model.norm.weight"] = found["model.norm.weight"].astype(np.float32)  # types may differ by tensor
    given = folders.write(tmp_path / "given", raw, found)
    for name in ("tokenizer_config.json", "merges.txt", "generation_config.json", "README.md"):
        (given / name).write_text(f'{{"of": "{name}"}}')
    convert(given, tmp_path / "orbax")
    convert(tmp_path / "orbax", tmp_path / "again")
    assert folders.bits(tmp_path / "again") == folders.bits(given)
    kept = {"tokenizer_config.json", "merges.txt", "generation_config.json"}
    assert {p.name for p in (tmp_path / "again").iterdir()} == kept | {"config.json", "model.safetensors"}
    assert all((tmp_path / "again" / name).read_bytes() == (given / name).read_bytes() for name in kept)
    made = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (made["eos_token_id"], made["bos_token_id"]) == ([7, 9], 1)
    assert huggingface.describe(tmp_path / "again") == huggingface.describe(given)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "given", "orbax"]


@pytest.mark.parametrize("family", [f for f in folders.FAMILIES if f != "gemma3"])  # transformers has no class for it
def test_a_value_model_comes_back_to_the_last_bit(family: str, tmp_path: Path):
    given = value_folder(tmp_path / "given", family)
    convert(given, tmp_path / "orbax")
    convert(tmp_path / "orbax", tmp_path / "again")
    assert folders.bits(tmp_path / "again") == folders.bits(given)
    assert json.loads((tmp_path / "orbax" / orbax_folders.MODEL).read_text())["kind"] == "value"
    assert huggingface.describe(tmp_path / "again") == huggingface.describe(given)


def test_other_programs_restore_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = folders.write(tmp_path / "given", folders.config("llama3"))
    convert(given, tmp_path / "orbax")
    assert f"{tmp_path / 'orbax'}: a language model of " in capsys.readouterr().out
    _, params = huggingface.load(given)
    restored = ocp.StandardCheckpointer().restore(tmp_path / "orbax" / "params", params)
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    assert not (tmp_path / "orbax" / "tokenizer").exists()  # there was none
    convert(tmp_path / "orbax", tmp_path / "again")
    assert folders.bits(tmp_path / "again") == folders.bits(given)


def stage(run: Path, dtype: str = "float32", surprise: bool = False, **fields: Any) -> tuple[Decoder, Any]:
    """A run whose stage `sorm` holds a random value model, its tokenizer in `base`."""
    tokenizer = handmade.tokenizer()
    config = decoder_config(vocab_size=tokenizer.vocab_size, **fields)
    params = {"decoder": decoder.init(Decoder(config), jax.random.key(0))}
    params["value_head"] = value_head.init(jax.random.key(1), config.d_model, surprise)
    for name in ("sorm", "sft", "base"):
        (run / name).mkdir(parents=True)
    artifacts.write_model(run / "sorm", params, config, dtype)
    artifacts.write_model(run / "sft", {"decoder": params["decoder"]}, config, dtype)
    tokenizer.save(run / "base")
    return Decoder(config), params


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_models_of_a_run_leave_with_their_tokenizer(dtype: str, tmp_path: Path):
    made, params = stage(tmp_path / "run", dtype)
    for name in ("sorm", "sft"):
        expected = jax.tree.map(lambda x: x.astype(dtype), params if name == "sorm" else params["decoder"])
        convert(tmp_path / "run" / name, tmp_path / name)
        model, found = huggingface.load(tmp_path / name)
        assert isinstance(model, ValueModel) == (name == "sorm")
        if name == "sorm":
            expected["decoder"].pop("unembedding")  # of no use to values
            expected["value_head"] = jax.tree.map(lambda x: x.astype(jnp.float32), expected["value_head"])
        assert flatten_dict(found).keys() == flatten_dict(expected).keys()
        for path, array in flatten_dict(found).items():
            np.testing.assert_array_equal(array, flatten_dict(expected)[path])
            assert array.dtype == flatten_dict(expected)[path].dtype
        assert pretrained.load(tmp_path / name).vocab_size == made.config.vocab_size
        raw = json.loads((tmp_path / name / "config.json").read_text())
        assert raw["eos_token_id"] == handmade.tokenizer().eos


@pytest.mark.parametrize("marks", pretrained.MARK_STYLES)
def test_a_published_tokenizer_goes_along_with_its_marks(marks: str, tmp_path: Path):
    (tmp_path / "published").mkdir()
    tokenizer = pretrained.load(vocabularies.make("byte_level", tmp_path / "published"), marks)
    config = decoder_config(vocab_size=tokenizer.vocab_size)
    (tmp_path / "run" / "base").mkdir(parents=True)
    params = {"decoder": decoder.init(Decoder(config), jax.random.key(0))}
    artifacts.write_model(tmp_path / "run" / "base", params, config)
    tokenizer.save(tmp_path / "run" / "base")
    convert(tmp_path / "run" / "base", tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "orbax")
    convert(tmp_path / "orbax", tmp_path / "again")
    for place in ("hf", "again"):
        assert scoring.read_tokenizer(tmp_path / place, None).marks == tokenizer.marks
        assert json.loads((tmp_path / place / "config.json").read_text())["eos_token_id"] == tokenizer.eos


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"surprise": True}, r"the surprise at each token, .*train with --config.value.surprise=False to export"),
        ({"prefix_lm": True}, "no architecture of transformers reads a prompt in both directions"),
        ({"qk_norm": True, "qkv_bias": True}, "no architecture of transformers has all of"),
    ],
)
def test_models_that_transformers_has_no_class_for_are_refused(
    fields: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = tmp_path / "run" / "sorm"
    stage(tmp_path / "run", **fields)
    error = refusal(source, tmp_path / "made", capsys)
    assert str(source) in error
    assert re.search(message, error), error


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_target_that_is_taken_is_refused(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = folders.write(tmp_path / "given", folders.config("llama3"))
    taken = tmp_path / "taken"
    (folders.write(taken, folders.config("llama3")) if what == "folder" else taken.write_text("mine"))
    assert "there is something already; give a new folder" in refusal(given, taken, capsys)
    assert "there is something already" in refusal(given, given, capsys)
    (tmp_path / "empty").mkdir()
    convert(given, tmp_path / "empty")
    assert orbax_folders.is_ours(tmp_path / "empty")


def test_a_source_that_would_be_swept_away_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = folders.write(tmp_path / "model.partial", folders.config("llama3"))
    assert "would be written over while" in refusal(given, tmp_path / "model", capsys)


def spoil(folder: Path, fault: str) -> Path:
    """A folder of Hugging Face, or what became of it."""
    if fault == "no folder":
        return folder / "nowhere"
    folders.write(folder, folders.config("llama3"))
    weights = folder / "model.safetensors"
    if fault == "pickled":
        weights.rename(folder / "pytorch_model.bin")
    elif fault == "pickled, no config":
        weights.rename(folder / "pytorch_model.bin")
        (folder / "config.json").unlink()
    elif fault == "no config":
        (folder / "config.json").unlink()
    elif fault == "unknown architecture":
        (folder / "config.json").write_text(json.dumps(folders.config("llama3") | {"architectures": ["GPT2LMHead"]}))
    elif fault == "missing tensors":
        found = load_file(weights)
        del found["model.norm.weight"]
        save_file(found, weights)
    elif fault == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif fault == "foreign checkpoint":
        _, params = huggingface.load(folder)
        shutil.rmtree(folder)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder / "step_1", params)
    return folder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no folder", "no such folder; give one of Hugging Face, of Orbax or of a stage, as RUN/sorm"),
        ("pickled", "only pickled weights (pytorch_model.bin)"),
        ("pickled, no config", "only pickled weights (pytorch_model.bin)"),
        ("no config", "weights, but no config.json"),
        ("unknown architecture", "unknown architecture GPT2LMHead; there are LlamaForCausalLM"),
        ("missing tensors", "missing tensor model.norm.weight [32]"),
        ("empty", "neither model.safetensors nor model.safetensors.index.json is there"),
        ("foreign checkpoint", "an Orbax checkpoint that `glore convert` did not make"),
    ],
)
def test_sources_that_are_no_model_are_refused(
    fault: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = spoil(tmp_path / "given", fault)
    error = refusal(source, tmp_path / "made", capsys)
    assert message in error
    assert str(source) in error


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["hugging face", "orbax", "stage"])
def test_weights_that_are_no_numbers_are_refused_by_name(
    kind: str, number: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if kind == "stage":
        decoder, params = stage(tmp_path / "run")
        source, name = tmp_path / "run" / "sorm", "decoder/attention_1/wq"
        params["decoder"]["attention_1"]["wq"] = params["decoder"]["attention_1"]["wq"].at[0, 0].set(number)
        artifacts.write_model(source, params, decoder.config)
    else:
        given = folders.write(tmp_path / "given", raw := folders.config("llama3"))
        model, params = huggingface.load(given)
        source, name = tmp_path / "source", "attention_1/wq"
        params["attention_1"]["wq"] = params["attention_1"]["wq"].at[0, 0].set(number)
        if kind == "orbax":
            orbax_folders.save(model, params, source)
        else:
            found, name = folders.weights(raw), "model.layers.1.self_attn.q_proj.weight"
            found[name][0, 0] = number
            folders.write(source, raw, found)
    error = refusal(source, tmp_path / "made", capsys)
    assert str(source) in error
    assert f"{name} has NaNs or infinities" in error
    assert error.count("has NaNs") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fault", ["no parameters", "a file cut", "other sizes", "no types", "not JSON"])
def test_damaged_checkpoints_are_refused(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "orbax"
    convert(folders.write(tmp_path / "given", folders.config("llama3")), folder)
    capsys.readouterr()
    described = files.read_json(folder / orbax_folders.MODEL)
    if fault == "no parameters":
        shutil.rmtree(folder / "params")
    elif fault == "a file cut":
        largest = max((p for p in (folder / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif fault == "other sizes":
        described["config"]["d_ff"] *= 2
        files.write_json(folder / orbax_folders.MODEL, described)
    elif fault == "no types":
        del described["dtypes"]["embedding"]
        files.write_json(folder / orbax_folders.MODEL, described)
    else:
        (folder / orbax_folders.MODEL).write_text("{")
    error = refusal(folder, tmp_path / "made", capsys)
    name = {"no types": orbax_folders.MODEL, "not JSON": orbax_folders.MODEL}.get(fault, "params")
    assert str(folder / name) in error
    assert "anew" in error
    gc.collect()  # reads that Orbax had begun end in complaints of theirs, here and not in the next test


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given = folders.write(tmp_path / "given", folders.config("llama3"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(orbax_folders.ocp.Checkpointer, "save", full)
    assert "No space left" in refusal(given, tmp_path / "made", capsys)


MEASURED = """
import json, resource, sys
from pathlib import Path
from glore_jax.stages import converting
unit = 1 if sys.platform == "darwin" else 1024
before = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
converting.convert(Path(sys.argv[1]), Path(sys.argv[2]))
print(json.dumps({"before": before, "peak": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""
SIZES = {"vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 20, "head_dim": 64}


@pytest.mark.slow
def test_it_takes_about_as_much_memory_as_the_parameters(tmp_path: Path):
    """0.8 GB in bfloat16, each way in a process of its own, whose peak memory is asked for."""
    raw = folders.config("llama3") | SIZES | {"num_attention_heads": 16, "num_key_value_heads": 16}
    shapes = folders.shapes(raw)

    def source(name: str, shape: tuple[int, ...], seed: int) -> tensors.Source:
        block = np.random.default_rng(seed).standard_normal(shape[-1], np.float32).astype(jnp.bfloat16)
        return tensors.Source(name, np.dtype(jnp.bfloat16), shape, lambda: np.broadcast_to(block, shape))

    (tmp_path / "given").mkdir()
    tensors.write_folder(tmp_path / "given", [source(n, s, i) for i, (n, s) in enumerate(shapes.items())], 10**9)
    files.write_json(tmp_path / "given" / "config.json", raw)
    size = 2 * sum(math.prod(shape) for shape in shapes.values())
    assert size > 7e8
    for start, end in (("given", "orbax"), ("orbax", "again")):
        words = [sys.executable, "-c", MEASURED, str(tmp_path / start), str(tmp_path / end)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(start, end, size, found)
        assert found["peak"] - found["before"] <= 1.5 * size
    assert folders.bits(tmp_path / "again") == folders.bits(tmp_path / "given")
