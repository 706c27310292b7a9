"""Weights split over the axes of rows: the same loss and gradients, gathered and scattered and never reduced whole."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.models import decoder, stacking, value_head
from glore_jax.models.decoder import Decoder
from glore_jax.models.execution import Execution
from glore_jax.parallel import collectives, placement
from glore_jax.training import losses, own_rows

CONFIG = tiny.decoder_config(num_layers=3)
SHARDING = {"preset": "fsdp", "rules": (), "data": 0, "fsdp": 0, "tensor": 0, "sequence": 0}


def batch() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(3, tiny.VOCAB, (4, 12)), jnp.int32)
    segments = jnp.asarray([[1] * 8 + [2] * 4, [1] * 12, [1] * 5 + [2] * 5 + [0] * 2, [1] * 12], jnp.int32)
    weights = jnp.asarray(rng.random((4, 12)), jnp.float32) * (segments > 0).astype(jnp.float32)
    positions = jnp.broadcast_to(jnp.arange(12, dtype=jnp.int32)[None], (4, 12))
    written = (segments > 0) & (positions > 0)
    return {
        "tokens": tokens, "positions": positions, "segments": segments, "prefix": segments < 0, "written": written,
        "targets": jnp.ones((4, 12)), "weights": weights, "steps": jnp.ones((4, 12), jnp.int32),
    }  # fmt: skip


def outputs(model: Decoder, params: Any, loss: Any) -> Any:
    """Loss, sums and gradients, and the text of the program."""
    split = jax.jit(jax.value_and_grad(lambda p, b: own_rows.split(loss)(model, p, b), has_aux=True))
    compiled = split.lower(params, batch()).compile()
    (total, sums), gradients = compiled(params, batch())
    return total, sums, gradients | {"decoder": stacking.unstack(gradients["decoder"])}, compiled.as_text()


@pytest.mark.parametrize("attention", ["xla", "splash"])
@pytest.mark.parametrize("loss", [losses.language, functools.partial(losses.value, language=0.5), losses.value])
def test_split_weights_give_the_same_loss_and_gradients(loss: Any, attention: str):
    params: Any = {"decoder": decoder.init(Decoder(CONFIG), jax.random.key(0))}
    # Values alone are read from hidden states, without any logits.
    params["value_head"] = value_head.init(jax.random.key(1), CONFIG.d_model, surprise=loss is not losses.value)
    expected = outputs(Decoder(CONFIG), params, loss)[:3]
    place = placement.make(SHARDING)
    model = Decoder(CONFIG, Execution(place, attention, remat="full"))
    assert model.execution.splits_weights
    *found, text = outputs(model, params | {"decoder": stacking.stack(params["decoder"], CONFIG)}, loss)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), tuple(found), expected)
    moved = collectives.read(text)
    assert moved.sent["all-gather"] > 0 and moved.sent["reduce-scatter"] > 0
    assert moved.sent["all-reduce"] < 0.1 * moved.sent["reduce-scatter"]  # norms, heads and sums alone


def test_nothing_is_done_where_weights_are_whole():
    model = Decoder(CONFIG, Execution(placement.make()))
    assert not model.execution.splits_weights and not Execution().splits_weights
