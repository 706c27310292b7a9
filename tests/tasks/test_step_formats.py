"""Step labels as others read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glore_jax.tasks import step_formats, traces

QUESTION, STEPS, LABELS = "Ann has 2 nuts. How many with 3 more?", ["2+3 = 6", "#### 6"], [0, 0]


def test_math_shepherd_is_read_back(tmp_path: Path):
    path = tmp_path / "made.jsonl"
    rows = [step_formats.math_shepherd(QUESTION, STEPS, labels, "sums") for labels in ([0, 0], [1, 0], [1, 1])]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    found = traces.read(path, "math_shepherd")
    assert [judged.labels for judged in found] == [(0, 0), (1, 0), (1, 1)]
    assert {judged.question for judged in found} == {QUESTION}
    assert found[0].steps == ("Step 1: 2+3 = 6", "Step 2: #### 6")
    assert found[0].subset == "sums"


def test_trl_has_a_label_for_each_completion():
    row = step_formats.trl(QUESTION, STEPS, LABELS)
    assert row == {"prompt": QUESTION, "completions": STEPS, "labels": [False, False]}


def test_the_reader_of_datasets_and_the_trainer_of_trl_take_it(tmp_path: Path):
    """As `PRMTrainer` prepares a row: each completion is followed by a separator, on which its label stands.

    TRL had it until 1.6.
    """
    datasets = pytest.importorskip("datasets")
    trainer = pytest.importorskip("trl.experimental.prm").PRMTrainer
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path / "trl.jsonl"
    path.write_text(json.dumps(step_formats.trl(QUESTION, STEPS, [1, 0])) + "\n")
    (row,) = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert row == step_formats.trl(QUESTION, STEPS, [1, 0])
    characters = sorted({*QUESTION, *"".join(STEPS), "\n"})
    model = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(characters)}, []))
    made = trainer.tokenize_row(
        row,
        tokenizer=transformers.PreTrainedTokenizerFast(tokenizer_object=model),
        step_separator="\n",
        max_length=None,
        max_completion_length=None,
        train_on_last_step_only=False,
        is_eval=False,
    )
    assert [label for label in made["labels"] if label >= 0] == [1, 0]
