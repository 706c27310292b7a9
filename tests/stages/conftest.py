"""One run of the smoke pipeline, shared by the tests that look at it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]


def smoke_command(workdir: Path, *more: str) -> list[str]:
    """`glore run` of the smoke pipeline; GLORE_TEST_BASE=DIR takes another base model than the shipped one."""
    base = os.environ.get("GLORE_TEST_BASE")
    config = ROOT / "configs" / "arithmetic.py"
    words = ["run", f"--config={config}:smoke", f"--workdir={workdir}"]
    return [sys.executable, "-m", "glore_jax", *words, *([f"--config.base.path={base}"] if base else []), *more]


def call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=900, env=environment)


@dataclasses.dataclass(frozen=True)
class Finished:
    """Attributes: workdir, out (what the run printed)."""

    workdir: Path
    out: str


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    workdir = tmp_path_factory.mktemp("smoke") / "run"
    done = call(smoke_command(workdir))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stderr == ""
    return Finished(workdir, done.stdout)


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):
        yield
