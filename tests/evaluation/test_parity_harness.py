"""Against lm-evaluation-harness' own `hf` model, which computes with transformers: the same numbers and texts.

Needs the extras `lm-eval` and `parity`; `tests/stages/test_harness.py` needs the first alone.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import checkpoints
import harness_tasks
import numpy as np
import public_data
import pytest
import vocabularies

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lm_eval = pytest.importorskip("lm_eval", reason="the extra `lm-eval` is not installed")
    pytest.importorskip("torch", reason="the extra `parity` is not installed")
    pytest.importorskip("transformers", reason="the extra `parity` is not installed")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from glore_jax.stages import harness

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    lines = (public_data.folder("gsm8k") / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:6]]


def checkpoint(folder: Path, family: str, tokenizer: str, longest: int) -> Path:
    """A random model with a tokenizer, as both load it."""
    folder.mkdir()
    vocabularies.make(tokenizer, folder)
    ids = json.loads((folder / "tokenizer.json").read_text())
    known = {token["content"]: token["id"] for token in ids["added_tokens"]}
    size = max(*ids["model"]["vocab"].values(), *known.values()) + 1
    raw = checkpoints.config(family) | {"vocab_size": size, "max_position_embeddings": longest}
    raw |= {"bos_token_id": known["<s>"], "eos_token_id": known["</s>"]}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return checkpoints.write(folder, raw)


def evaluated(lm: Any, include: Path, fewshot: int) -> dict[str, Any]:
    manager = TaskManager(include_path=str(include), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=lm, tasks=list(harness_tasks.NAMES), num_fewshot=fewshot, task_manager=manager, bootstrap_iters=0
    )


def answers(found: dict[str, Any], task: str) -> list[Any]:
    """What the model gave for each row of a task."""
    return [sample["filtered_resps"] for sample in sorted(found["samples"][task], key=lambda s: s["doc_id"])]


@pytest.mark.parametrize(
    ("family", "tokenizer", "longest", "fewshot", "batch"),
    [
        ("llama3", "byte_level", 1024, 0, 1),
        ("qwen3", "metaspace", 1024, 2, 4),
        ("gemma2", "byte_level", 160, 2, 4),  # contexts lose their beginning, texts take several windows
    ],
)
def test_the_numbers_are_those_of_hf(
    tmp_path: Path, rows: list[dict[str, str]], family: str, tokenizer: str, longest: int, fewshot: int, batch: int
):
    folder = checkpoint(tmp_path / "model", family, tokenizer, longest)
    include = harness_tasks.write(tmp_path / "tasks", rows)
    theirs = evaluated(HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch), include, fewshot)
    ours = evaluated(harness.LanguageModel(folder, batch_size=batch), include, fewshot)

    written, chosen, read = harness_tasks.NAMES
    assert answers(ours, written) == answers(theirs, written)
    for task in (chosen, read):
        np.testing.assert_allclose(
            np.asarray(answers(ours, task), float), np.asarray(answers(theirs, task), float), rtol=1e-4, atol=1e-3
        )
    for task in harness_tasks.NAMES:
        numbers = {k: v for k, v in theirs["results"][task].items() if isinstance(v, float)}
        assert numbers
        assert {k: ours["results"][task][k] for k in numbers} == pytest.approx(numbers, rel=1e-4)
