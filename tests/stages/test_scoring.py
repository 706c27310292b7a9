"""`glore score`: from files of solutions and a folder of a value model to a row of values each."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import tokenizer
from tiny import decoder_config

from glore_jax import cli, files
from glore_jax.errors import InputError
from glore_jax.method import reward_models
from glore_jax.models import decoder, huggingface, value_head
from glore_jax.models.decoder import Decoder
from glore_jax.models.value_head import ValueModel
from glore_jax.records import Judged, Problem, Scored, Solution
from glore_jax.stages import artifacts, scoring
from glore_jax.text import formats

ROWS = [
    {"id": "a", "question": "Ann has 2 nuts. How many with 3 more?", "steps": ["2+3 = <<2+3=5>>5", "#### 5"]},
    {"id": "b", "question": "Ann has 4 nuts. How many with 3 more?", "steps": ["4+3 = <<4+3=8>>8", "so 8", "#### 8"]},
    {"id": "c", "question": "Ann has 4 nuts. How many with 3 more?", "steps": ["7"]},
]


def model(value: float | None = None) -> tuple[Decoder, Any]:
    """A decoder with random weights and a head; with `value`, one that says nothing else."""
    config = decoder_config(vocab_size=tokenizer().vocab_size)
    head = jax.tree.map(lambda x: 10 * x, value_head.init(jax.random.key(1), config.d_model))
    if value is not None:
        head = {"kernel": jnp.zeros(config.d_model), "bias": jnp.float32(math.log(value / (1 - value)))}
    return Decoder(config), {"decoder": decoder.init(Decoder(config), jax.random.key(0)), "value_head": head}


def run_folder(folder: Path, value: float | None = None) -> Path:
    """The folder of the value model in a work folder, its tokenizer in `base`."""
    made, params = model(value)
    for name in ("sorm", "base"):
        (folder / name).mkdir(parents=True)
    artifacts.write_model(folder / "sorm", params, made.config)
    tokenizer().save(folder / "base")
    return folder / "sorm"


def solutions(folder: Path) -> Path:
    path = folder / "solutions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def score(folder: Path, model: Path, *words: str, output: str = "values.jsonl") -> list[dict[str, Any]]:
    arguments = ["score", f"--model={model}", f"--input={solutions(folder)}", f"--output={folder / output}", *words]
    assert cli.main(arguments) == 0
    return [json.loads(line) for line in (folder / output).read_text().splitlines()]


def test_rows_have_values_first_error_and_final_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = score(tmp_path, run_folder(tmp_path / "run", 0.3))
    assert [list(row) for row in rows] == [["id", "values", "first_error", "final_value"]] * 3
    assert [(row["id"], len(row["values"]), row["first_error"]) for row in rows] == [
        ("a", 2, 0),
        ("b", 3, 0),
        ("c", 1, 0),
    ]
    assert all(value == pytest.approx(0.3) for row in rows for value in [*row["values"], row["final_value"]])
    assert "values.jsonl: 3 solutions, 3 with a step under 0.5" in capsys.readouterr().out
    assert [row["first_error"] for row in score(tmp_path, tmp_path / "run" / "sorm", "--threshold=0.2")] == [-1] * 3


def test_values_are_those_that_a_run_reads(tmp_path: Path):
    rows = score(tmp_path, run_folder(tmp_path / "run"))
    problems = {row["id"]: Problem(row["id"], row["question"], "") for row in ROWS}
    found = []
    for row in ROWS:
        tokens, ends = formats.encode_solution(tokenizer(), row["steps"])
        found.append(Solution(row["id"], row["id"], tuple(tokens), ends, "\n".join(row["steps"]), False))
    expected = reward_models.score(*model(), tokenizer(), problems, found)
    for row, values in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row["values"], values, rtol=1e-6)
        assert row["final_value"] == row["values"][-1]
        under = [i for i, value in enumerate(row["values"]) if value < 0.5]
        assert row["first_error"] == (under[0] if under else -1)
    assert np.ptp([value for row in rows for value in row["values"]]) > 0.01


def test_parquet_holds_the_same(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    rows = score(tmp_path, folder)
    arguments = [f"--model={folder}", f"--input={solutions(tmp_path)}", f"--output={tmp_path / 'values.parquet'}"]
    assert cli.main(["score", *arguments]) == 0
    found = files.read_table(tmp_path / "values.parquet", Scored)
    assert [dataclasses.asdict(row) | {"values": list(row.values)} for row in found] == rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_hugging_face_folder_gives_the_same_values(tmp_path: Path, dtype: str):
    rows = score(tmp_path, run_folder(tmp_path / "run"))
    made, params = model()
    params["decoder"] = jax.tree.map(lambda x: x.astype(dtype), params["decoder"])
    vocabulary = tmp_path / "run" / "base" / "tokenizer.model"
    huggingface.save(ValueModel(made), params, tmp_path / "hf", tokenizer=vocabulary)
    for row, same in zip(rows, score(tmp_path, tmp_path / "hf"), strict=True):
        np.testing.assert_allclose(row["values"], same["values"], atol=1e-5 if dtype == "float32" else 0.05)


def test_a_step_is_read_as_one_line(tmp_path: Path):
    split, whole = (Judged("a", "How many?", (text,)) for text in ("2+3\n\n = 5 ", "2+3 = 5"))
    first, second = scoring.read_with(tokenizer(), [split, whole], tokenizer().vocab_size)
    assert first == second
    assert len(first.ends) == 1
    assert first.tokens[first.ends[0]] == tokenizer().step_end


def test_the_tokenizer_may_lie_elsewhere(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    expected = score(tmp_path, folder)
    (tmp_path / "run" / "base").rename(tmp_path / "elsewhere")
    for place in (tmp_path / "elsewhere", tmp_path / "elsewhere" / "tokenizer.model"):
        assert score(tmp_path, folder, f"--tokenizer={place}") == expected
    with pytest.raises(
        InputError, match=r"sorm: no tokenizer there, nor in .*base; name its folder or file with --tok"
    ):
        scoring.read_tokenizer(folder, None)


def test_what_is_refused_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = run_folder(tmp_path / "run")
    made, params = model()
    (tmp_path / "run" / "student").mkdir()
    artifacts.write_model(tmp_path / "run" / "student", {"decoder": params["decoder"]}, made.config)
    (tmp_path / "run" / "spoilt").mkdir()
    spoilt = {**params, "value_head": {**params["value_head"], "bias": jnp.float32(jnp.nan)}}
    artifacts.write_model(tmp_path / "run" / "spoilt", spoilt, made.config)
    short = Decoder(dataclasses.replace(made.config, max_positions=30))
    huggingface.save(ValueModel(short), params, tmp_path / "short", tmp_path / "run" / "base" / "tokenizer.model")
    checkpoints.write(tmp_path / "lm", checkpoints.config("llama3"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "question": "?", "steps": ["x", ""]}\n')
    good = {"--model": folder, "--input": solutions(tmp_path), "--output": tmp_path / "out.jsonl"}
    cases = [
        ({"--output": tmp_path / "out.csv"}, "expected a name that ends in .jsonl or .parquet"),
        ({"--threshold": 3}, "--threshold=3.0: values are probabilities; expected a number from 0 to 1"),
        ({"--threshold": "nan"}, "expected a number from 0 to 1"),
        ({"--threshold": "half"}, "argument --threshold: invalid float value: 'half'"),
        ({"--input": bad}, "bad.jsonl, line 1: step 1 (counted from 0) is empty"),
        ({"--input": tmp_path / "absent"}, "absent: cannot be read"),
        ({"--model": tmp_path / "absent"}, "absent: no folder there; give that of a value model"),
        ({"--model": tmp_path / "run" / "student"}, "student: it has no value head"),
        ({"--model": tmp_path / "run" / "spoilt"}, "gives 3 of 3 solutions values that are no numbers, 'a' first"),
        ({"--model": tmp_path / "short"}, "have more than the 30 tokens that the model was made for, 'a' (47) first"),
        ({"--model": tmp_path / "lm"}, "lm: a language model; expected one for token classification"),
        ({"--model": tmp_path / "run" / "base"}, "not a model of glore_jax"),
    ]
    for change, message in cases:
        words = [f"{name}={value}" for name, value in (good | change).items()]
        assert cli.main(["score", *words]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
        assert not list(tmp_path.glob("out.*"))


def test_another_models_tokenizer_is_noticed():
    with pytest.raises(
        InputError, match=r"the tokenizer writes token \d+, and the model knows 5; give the model's own"
    ):
        scoring.read_with(tokenizer(), [Judged("a", "How many?", ("5",))], 5)
