"""The families of decoders: what they compute against what transformers computed (`make_golden.py`)."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import checkpoints
import jax
import jax.numpy as jnp
import make_golden
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.models import huggingface
from glore_jax.parallel import mesh as meshes
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Request, Source

FAMILIES = list(checkpoints.FAMILIES)


@functools.cache
def loaded(family: str) -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return huggingface.load(checkpoints.write(Path(folder), checkpoints.config(family)))


def golden(family: str) -> Any:
    return np.load(make_golden.GOLDEN / f"{family}.npz")


@functools.partial(jax.jit, static_argnums=0)
def call(model: Any, params: Any, tokens_BxT: Any) -> jax.Array:
    return model.apply({"params": params}, tokens_BxT)


def assert_near(found: Any, expected: np.ndarray) -> None:
    """Within 1e-4 of the largest logit."""
    assert np.abs(np.asarray(found) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str):
    model, params = loaded(family)
    logits = call(model, params, checkpoints.padded(checkpoints.prompts()))
    assert logits.dtype == jnp.float32
    assert_near(logits[make_golden.positions()], golden(family)["logits"])


@pytest.mark.parametrize("family", FAMILIES)
def test_64_greedy_tokens_through_the_cache_are_those_of_transformers(family: str):
    """Three ragged prompts in two slots: the last one starts late, in a ring that others have written."""
    model, params = loaded(family)
    settings = tiny.sampling(slots=2, sources=2, chunk=16, buckets=(24,), max_new_tokens=make_golden.NEW)
    prompts = checkpoints.prompts()
    engine = Engine(model.decoder, params, settings, eos=-1, pad=0)
    requests = [Request(str(i), Source(prompt), len(prompt)) for i, prompt in enumerate(prompts)]
    found = engine.generate(requests, jax.random.key(0))
    expected = golden(family)
    assert expected["margin"] > 1e-4  # no tie that rounding could break
    np.testing.assert_array_equal([c.tokens for c in found], expected["greedy"])


def test_log_probabilities_of_sampling_are_of_capped_logits():
    model, params = loaded("gemma2")
    settings = tiny.sampling(slots=2, sources=2, chunk=8, buckets=(24,), max_new_tokens=8)
    prompts = checkpoints.prompts()[1:]
    requests = [Request(str(i), Source(prompt), len(prompt), 1.0) for i, prompt in enumerate(prompts)]
    found = Engine(model.decoder, params, settings, eos=-1, pad=0).generate(requests, jax.random.key(0))
    rows = [[*prompt, *completion.tokens] for prompt, completion in zip(prompts, found, strict=True)]
    nats = jax.nn.log_softmax(call(model, params, checkpoints.padded(rows)))
    for r, (prompt, completion) in enumerate(zip(prompts, found, strict=True)):
        places = range(len(prompt) - 1, len(rows[r]) - 1)
        expected = sum(float(nats[r, t, rows[r][t + 1]]) for t in places)
        assert completion.logprob == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_model_split_over_devices_computes_the_same(family: str):
    """A model that was loaded onto a mesh, with every matrix split, gives the same logits."""
    whole, params = loaded(family)
    mesh = meshes.make()
    split = jax.tree.map(lambda x: NamedSharding(mesh, P(*[None] * (x.ndim - 1), "data")), params)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.write(Path(folder), checkpoints.config(family))
        model, spread = huggingface.load(folder, sharding=split)
    assert model == whole
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(spread)} == {2}
    jax.tree.map(np.testing.assert_array_equal, spread, params)
    logits = call(model, spread, checkpoints.padded(checkpoints.prompts()))
    assert_near(logits[make_golden.positions()], golden(family)["logits"])
