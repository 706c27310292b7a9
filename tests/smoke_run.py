"""Starting the smoke pipeline as a process, the way a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command(workdir: Path, *more: str) -> list[str]:
    """`glore run` of the smoke pipeline."""
    config = ROOT / "configs" / "arithmetic.py"
    words = ["run", f"--config={config}:smoke", f"--workdir={workdir}", *more]
    return [sys.executable, "-m", "glore_jax", *words]


def glore(*words: str) -> subprocess.CompletedProcess[str]:
    return call([sys.executable, "-m", "glore_jax", *words])


def call(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=1800, env=environment)
