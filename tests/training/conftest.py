"""Optax adds floats to integers; what goes through it cannot be strict about dtypes."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def optax_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):
        yield
