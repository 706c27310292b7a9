"""Tasks for lm-evaluation-harness on a few rows that lie on this machine: one of each kind of request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# JSON is YAML; what a template leaves out the harness fills with its defaults.
_TASKS: dict[str, dict[str, Any]] = {
    "local_written": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer.split('#### ')[1]}}",
        "generation_kwargs": {"until": ["\n\n", "Question:"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "local_chosen": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer: ",  # the blank belongs to the continuation
        "doc_to_choice": "{{[answer.split('#### ')[1], '7', 'twenty nuts']}}",
        "doc_to_target": 0,
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
        ],
    },
    "local_read": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}\n{{answer}}",
        "metric_list": [
            {"metric": metric, "aggregation": "weighted_perplexity", "higher_is_better": False}
            for metric in ("word_perplexity", "byte_perplexity")
        ],
    },
}  # fmt: skip
NAMES = tuple(_TASKS)


def write(folder: Path, rows: Sequence[dict[str, str]]) -> Path:
    """A folder with the tasks; rows have `question` and `answer`, as GSM8K's."""
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, task in _TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
        made = {"task": name, **data, "test_split": "test", **task}
        (folder / f"{name}.yaml").write_text(json.dumps(made), encoding="utf-8")
    return folder
