"""The default values that results depend on, pinned. Renew them with `python tests/configs/golden.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glore_jax import configuration

ROOT = Path(__file__).parents[2]
PATH = Path(__file__).with_suffix(".json")
MODELS = ("llama2_7b", "llama2_13b", "llama3_8b", "qwen2_5_7b", "qwen3_8b", "gemma3_12b", "mistral_7b")
PUBLISHED = ("gsm8k.py", *(f"gsm8k_{model}.py" for model in MODELS), "svamp.py", "svamp_llama2_7b.py")
PINNED = (
    "arithmetic.py",
    "arithmetic.py:full",
    "arithmetic_base.py",
    "jsonl.py",
    "label.py",
    "traces_value.py",
    *PUBLISHED,
    "gsm8k.py:lora",
    "gsm8k_tiny.py",
)
RENEW = (
    "If the change is meant, renew the pinned values with `python tests/configs/golden.py`, and make again what "
    "was measured with the old ones: the results in README.md and docs/, for arithmetic_base.py the base model."
)


def values(spec: str) -> dict[str, Any]:
    """A configuration as JSON has it: tuples are lists."""
    return json.loads(configuration.to_json(configuration.load(str(ROOT / "configs" / spec))))


if __name__ == "__main__":
    text = json.dumps({spec: values(spec) for spec in PINNED}, indent=1, sort_keys=True)
    PATH.write_text(text + "\n", encoding="utf-8")
