"""One step of training, the same for student, value models and refiners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from glore_jax.models.decoder import Decoder
from glore_jax.training import adaptation


class TrainState(flax.struct.PyTreeNode):
    """Attributes: step (scalar int32), params (what learns, float32), opt_state."""

    step: jax.Array
    params: Any
    opt_state: Any


def init(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make(
    model: Decoder, loss: Callable, optimizer: optax.GradientTransformation, join: Callable = adaptation.join
) -> Callable:
    """`train_step(state, batch, frozen) -> (state, metrics)`; metrics are means over weighted positions.

    Args:
      join: makes parameters for the loss of `state.params` and of what stays, `frozen`, which may be left out where
        everything learns.
    """

    def mean_loss(trained: Any, batch: Any, frozen: Any) -> tuple[jax.Array, Any]:
        total, sums = loss(model, join(trained, frozen), batch)
        return total / jnp.maximum(sums["weight"], 1.0), sums

    def train_step(state: TrainState, batch: Any, frozen: Any = None) -> tuple[TrainState, dict[str, jax.Array]]:
        (mean, sums), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params, batch, frozen)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {name: total / jnp.maximum(sums["weight"], 1.0) for name, total in sums.items() if name != "weight"}
        metrics |= {"loss": mean, "weight": sums["weight"], "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step


def guarded(train_step: Callable) -> Callable:
    """`train_step(state, batch, frozen, limit)`, which leaves out updates whose loss or gradients are bad.

    Bad are numbers that are none, and a loss above `limit`. The state stays as it was then, but for its count of steps,
    and `metrics["skipped"]` is 1.
    """

    def guarded_step(state: TrainState, batch: Any, frozen: Any, limit: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        after, metrics = train_step(state, batch, frozen)
        good = jnp.isfinite(metrics["gradient_norm"]) & jnp.isfinite(metrics["loss"]) & (metrics["loss"] <= limit)
        before = state.replace(step=after.step)
        after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, before)
        return after, metrics | {"skipped": 1.0 - good.astype(jnp.float32)}

    return guarded_step
