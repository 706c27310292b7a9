"""Slots that lie as the compiler chooses: the same tokens, and nothing compiled twice."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny

from glore_jax.sampling import programs
from glore_jax.sampling.requests import Request, Source


def test_the_engine_samples_the_same_where_the_compiler_chooses(monkeypatch: pytest.MonkeyPatch):
    """On a CPU it chooses rows; what is shown is that all programs of the engine go together."""
    draw = np.random.default_rng(3)
    sources = [Source(draw.integers(3, tiny.VOCAB, size).tolist()) for size in draw.integers(2, 12, 5)]
    requests = [Request(f"r{i}/{k}", s, len(s.tokens), 1.0) for i, s in enumerate(sources) for k in range(4)]
    key = jax.random.key(7)
    expected = tiny.engine(buckets=(12,)).generate(requests, key)
    monkeypatch.setattr(programs, "compiler_chooses", lambda place: True)
    engine = tiny.engine(buckets=(12,))
    assert [c.tokens for c in engine.generate(requests, key)] == [c.tokens for c in expected]
    (made,) = engine.programs.values()
    sizes = made.bind._cache_size(), made.insert._cache_size()
    engine.generate(requests, key)
    assert list(engine.programs.values()) == [made]
    assert (made.bind._cache_size(), made.insert._cache_size()) == sizes
