"""One run of the smoke pipeline, shared by the tests that look at it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
import smoke_run


@dataclasses.dataclass(frozen=True)
class Finished:
    """Attributes: workdir, out (what the run printed)."""

    workdir: Path
    out: str


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    workdir = tmp_path_factory.mktemp("smoke") / "run"
    done = smoke_run.call(smoke_run.command(workdir))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stderr == ""
    return Finished(workdir, done.stdout)


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """Optax adds floats to integers; what goes through it cannot be strict about dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield
