"""What a training begins with: its state, made where it shall lie, and its jitted step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from glore_jax.errors import InputError
from glore_jax.models import layout
from glore_jax.models.decoder import Decoder
from glore_jax.models.lora import LoraConfig
from glore_jax.parallel.placement import Placement
from glore_jax.training import adaptation, optimizer, train_step


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What `loop.train` goes on from.

    Attributes:
      state: donated from step to step.
      frozen: what stays.
      step: `step(state, batch, frozen, limit) -> (state, metrics)`; the limit is of the loss (`train_step.guarded`).
      sums: of the loss alone, `sums(learning, frozen, batch) -> (total, weight)`.
      join, lora: see `adaptation`.
    """

    state: train_step.TrainState
    frozen: Any
    step: Callable
    sums: Callable
    join: Callable
    lora: LoraConfig | None


def check(key: str, settings: Any, place: Placement) -> None:
    """InputError where the batches of a training cannot be split.

    Args:
      key: of its settings, e.g. `sft.train`.
    """
    place.check_rows(f"{key}.rows", settings.rows, settings.micro_batches)
    positions = place.parts("positions")
    if settings.row_length % positions:
        raise InputError(
            f"{key}.row_length={settings.row_length} does not divide by sharding.sequence={positions}; make it a "
            f"multiple of {positions}"
        )


@dataclasses.dataclass(frozen=True)
class Laid:
    """A step, and where its arguments lie.

    Attributes:
      step: see `Beginning`; it gives the state back where it was.
      moments: the optimizer's, of parameters that learn.
      join: see `adaptation`.
      state, frozen: shardings.
    """

    step: Any
    moments: Callable
    join: Callable
    state: train_step.TrainState
    frozen: Any


def lay(
    model: Decoder,
    split: tuple[Any, Any],
    loss: Callable,
    settings: Any,
    total: int,
    place: Placement,
    lora: LoraConfig | None,
    marks: Sequence[int],
) -> Laid:
    """Args: split: what `adaptation.split` gives, or the shapes of it; total: steps of the training.

    Raises:
      InputError: the model cannot be split over the devices.
    """
    learning, frozen = split
    tx = optimizer.make(settings, total)
    join = functools.partial(adaptation.join, config=lora, marks=tuple(marks))
    at = train_step.shardings(layout.named(model, learning), tx, place)
    step = train_step.make(model.clone(place=place), loss, tx, join, settings.micro_batches)
    jitted = _jitted(step, settings.on_bad_step, (at, place.whole))
    moments = jax.jit(tx.init, out_shardings=at.opt_state)
    return Laid(jitted, moments, join, at, layout.shardings(model, frozen, place))


def begin(
    model: Decoder,
    params: Any,
    loss: Callable,
    settings: Any,
    total: int,
    place: Placement,
    key: jax.Array,
    marks: Sequence[int] = (),
    spend: bool = False,
) -> Beginning:
    """Nothing of the state is ever whole on one device that shall have a part of it.

    Args:
      total: steps of the training.
      key: of a new adapter.
      spend: whether `params` may be used up, so that the memory they take becomes the state's.
      The others are as of `loop.train`.
    """
    lora = adaptation.config_of(settings, params["decoder"])
    learning, frozen = adaptation.split(params, lora, marks, key)
    laid = lay(model, (learning, frozen), loss, settings, total, place, lora, marks)
    learning = jax.device_put(learning, laid.state.params, may_alias=spend)
    count = jax.device_put(jnp.zeros((), jnp.int32), place.whole)
    state = train_step.TrainState(count, learning, laid.moments(learning))

    def sums(learning: Any, frozen: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        total, found = loss(model.clone(place=place), laid.join(learning, frozen), batch)
        return total, found["weight"]

    return Beginning(state, jax.device_put(frozen, laid.frozen), laid.step, jax.jit(sums), laid.join, lora)


def _jitted(step: Callable, policy: str, results: Any) -> Callable:
    """The step with its state donated; both policies take the limit of the loss, which one leaves to the host."""

    def unguarded_step(state: Any, batch: Any, frozen: Any, limit: Any) -> tuple[Any, Any]:
        return step(state, batch, frozen)

    chosen = train_step.guarded(step) if policy == "skip" else unguarded_step
    return jax.jit(chosen, donate_argnums=0, out_shardings=results)
