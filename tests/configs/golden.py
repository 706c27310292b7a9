"""The default values that results depend on, pinned, and the keys that a configuration must have.

Renew both with `python tests/configs/golden.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glore_jax import configuration
from glore_jax.stages import config_keys

ROOT = Path(__file__).parents[2]
PATH = Path(__file__).with_suffix(".json")
KEYS = ROOT / "glore_jax" / "assets" / config_keys.PLACE
MODELS = ("llama2_7b", "llama2_13b", "llama2_70b", "llama3_8b", "qwen2_5_7b", "qwen3_8b", "gemma3_12b", "mistral_7b")
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


def shipped_keys() -> list[dict[str, Any]]:
    """The keys of the first file of each recipe and task."""
    found: dict[str, dict[str, Any]] = {}
    for spec in PINNED:
        made = config_keys.of(f"configs/{spec}", values(spec))
        found.setdefault(json.dumps(made["of"]), made)
    return list(found.values())


if __name__ == "__main__":
    KEYS.write_text(json.dumps(shipped_keys(), indent=1) + "\n", encoding="utf-8")
    text = json.dumps({spec: values(spec) for spec in PINNED}, indent=1, sort_keys=True)
    PATH.write_text(text + "\n", encoding="utf-8")
