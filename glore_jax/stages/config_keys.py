"""Whether a configuration has every key that its stages read, told before anything is computed.

What they read is what the shipped configurations have. These lie outside of the package, so their keys are kept in
`assets/config_keys.json`, which `python tests/configs/golden.py` writes.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from glore_jax import configuration
from glore_jax.errors import InputError

OPTIONAL = ("seed", *configuration.RUNTIME)  # what is read of these keys and groups has a value without them
PLACE = "config_keys.json"


def check(config: Any) -> None:
    """Compares with the shipped configuration of the same recipe and task; one of no known recipe or task passes.

    Raises:
      InputError: keys that are missing, by name.
    """
    here = configuration.leaves(config)
    for shipped in _shipped():
        if any(here.get(key) != value for key, value in shipped["of"].items()):
            continue
        if missing := [key for key in shipped["keys"] if key not in here]:
            raise InputError(
                f"the configuration lacks {', '.join(missing)}, which its stages read; {shipped['file']} has "
                f"{'them' if missing[1:] else 'it'} with a comment: copy from there, or build on its get_config()"
            )


def of(file: str, config: Any) -> dict[str, Any]:
    """What is kept of a shipped configuration: its file, by which keys one is of its kind, and all keys."""
    here = configuration.leaves(config)
    kind = {key: here[key] for key in ("recipe", "task.name") if key in here}
    return {"file": file, "of": kind, "keys": [key for key in here if key.partition(".")[0] not in OPTIONAL]}


@functools.cache
def _shipped() -> list[dict[str, Any]]:
    return json.loads((resources.files("glore_jax") / "assets" / PLACE).read_text(encoding="utf-8"))
