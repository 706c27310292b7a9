"""Fixtures of the hand-built test walks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from candidates import build_candidate, build_case

from glore_jax.records import Candidate, Case

MODELS = ("orm", "orm_balanced", "sorm")
THRESHOLDS = {"gate": 0.5, "rank_margin": 0.0, "orm_step": 0.7, "sorm_step": 0.3, "orm_f1": 0.7, "sorm_f1": 0.3}


@pytest.fixture
def candidate() -> Callable[..., Candidate]:
    return build_candidate


@pytest.fixture
def case() -> Callable[..., Case]:
    return build_case


@pytest.fixture
def thresholds() -> dict[str, float]:
    return dict(THRESHOLDS)
