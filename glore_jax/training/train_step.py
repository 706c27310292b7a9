"""One step of training, the same for student, value models and refiners."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from glore_jax.models.decoder import Decoder
from glore_jax.parallel.placement import Placement
from glore_jax.training import adaptation


class TrainState(flax.struct.PyTreeNode):
    """Attributes: step (scalar int32), params (what learns, float32), opt_state."""

    step: jax.Array
    params: Any
    opt_state: Any


def init(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def shardings(params: Any, optimizer: optax.GradientTransformation, place: Placement) -> TrainState:
    """Where a state lies: moments as the parameters that they are of.

    Args:
      params: shapes of what learns, with axis names (`models.layout.named`).
    """
    return place.of_params(jax.eval_shape(functools.partial(init, optimizer=optimizer), params))


def make(
    model: Decoder,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    join: Callable = adaptation.join,
    micro_batches: int = 1,
) -> Callable:
    """`train_step(state, batch, frozen) -> (state, metrics)`; metrics are means over weighted positions.

    Args:
      join: makes parameters for the loss of `state.params` and of what stays, `frozen`, which may be left out where
        everything learns.
      micro_batches: parts of a batch, whose gradients are taken one after the other and summed. A part counts by the
        weights in it, so the sum is the gradient of the whole batch, in the memory that a part takes.
    """

    def share(trained: Any, part: Any, frozen: Any, weight: jax.Array) -> tuple[jax.Array, Any]:
        """What a part adds to the mean loss of a batch of so much weight."""
        total, sums = loss(model, join(trained, frozen), part)
        return total / weight, sums

    gradient = jax.value_and_grad(share, has_aux=True)

    def summed(trained: Any, batch: Any, frozen: Any, weight: jax.Array) -> Any:
        def add(sums: Any, part: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, gradient(trained, part, frozen, weight)), None

        parts = jax.tree.map(functools.partial(_parts, count=micro_batches), batch)
        one = jax.tree.map(lambda x: x[0], parts)
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, trained, one, frozen, weight)
        )
        return jax.lax.scan(add, zeros, parts)[0]

    def train_step(state: TrainState, batch: Any, frozen: Any = None) -> tuple[TrainState, dict[str, jax.Array]]:
        weight = jnp.maximum(jnp.sum(batch["weights"]), 1.0)
        compute = summed if micro_batches > 1 else gradient
        (mean, sums), gradients = compute(state.params, batch, frozen, weight)
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


def _parts(x_BxT: jax.Array, count: int) -> jax.Array:
    """[count, B / count, T]: every part has rows of every device, so that none has to move."""
    B = x_BxT.shape[0]
    return x_BxT.reshape(B // count, count, *x_BxT.shape[1:]).swapaxes(0, 1)
