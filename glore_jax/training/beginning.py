"""What a training begins with: its state, made where it shall lie, and its jitted step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from glore_jax.errors import InputError
from glore_jax.models import layout, stacking
from glore_jax.models.decoder import Decoder
from glore_jax.models.execution import REMAT, Execution
from glore_jax.models.lora import LoraConfig
from glore_jax.parallel import programs
from glore_jax.parallel.placement import Placement
from glore_jax.training import adaptation, optimizer, own_rows, train_step


def check(key: str, settings: Any, place: Placement) -> None:
    """InputError where the batches of a training cannot be split, or its layers not be computed as it asks.

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
    if settings.remat not in REMAT:
        raise InputError(f"{key}.remat={settings.remat!r}: expected one of {', '.join(REMAT)}")


@dataclasses.dataclass(frozen=True)
class Laid:
    """The programs of a training, and where their arguments lie.

    Attributes:
      state, frozen: what learns with its moments, and what stays: shapes with their shardings, layers stacked where the
        settings want them scanned.
      init: `init(learning) -> state`.
      step: `step(state, batch, frozen, limit) -> (state, metrics)`, the state donated, and given back where it was; the
        limit is of the loss (`train_step.guarded`).
      sums: of the loss alone, `sums(learning, frozen, batch) -> (total, weight)`.
      finish: `finish(learning, frozen)`: parameters for later stages, an adapter merged and layers by themselves.
    """

    state: train_step.TrainState
    frozen: Any
    init: Any
    step: Any
    sums: Callable
    finish: Callable


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
    if settings.scan:
        stack = functools.partial(stacking.stack_layers, config=model.config)
        split = jax.eval_shape(stack, split[0]), jax.eval_shape(stack, split[1])
    learning, frozen = split
    tx = optimizer.make(settings, total)
    init = functools.partial(train_step.init, optimizer=tx)
    at = train_step.shardings(layout.named(model, learning), tx, place)
    join = functools.partial(adaptation.join, config=lora, marks=tuple(marks))
    model, loss = model.clone(execution=Execution(place, remat=settings.remat)), own_rows.split(loss)
    step = train_step.make(model, loss, tx, join, settings.micro_batches)

    def sums(learning: Any, frozen: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        total, found = loss(model, join(learning, frozen), batch)
        return total, found["weight"]

    def finish(learning: Any, frozen: Any) -> Any:
        return stacking.unstack_layers(join(learning, frozen))

    if lora or settings.scan:  # else there is nothing to do
        params = jax.eval_shape(finish, learning, frozen)
        finish = jax.jit(finish, out_shardings=layout.shardings(model, params, place))
    return Laid(
        programs.shapes(jax.eval_shape(init, learning), at),
        programs.shapes(frozen, layout.shardings(model, frozen, place)),
        jax.jit(init, donate_argnums=0, out_shardings=at),
        _jitted(step, settings.on_bad_step, (at, place.whole), programs.options(place.mesh.devices.flat[0])),
        jax.jit(sums),
        finish,
    )


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What `loop.train` goes on from.

    Attributes:
      state: donated from step to step.
      frozen: what stays.
      laid: the programs.
      lora: see `adaptation`.
    """

    state: train_step.TrainState
    frozen: Any
    laid: Laid
    lora: LoraConfig | None


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
    if settings.scan:
        group = functools.partial(stacking.stack_layers, config=model.config, by=stacking.group)
        learning, frozen = group(learning), group(frozen)
    state = laid.init(_put(learning, laid.state.params, spend, copy=True))
    return Beginning(state, _put(frozen, laid.frozen, spend), laid, lora)


def _put(tree: Any, at: Any, spend: bool, copy: bool = False) -> Any:
    """Arrays where they shall lie, and groups of layers (`stacking.group`) as one array each.

    Args:
      at: shapes with their shardings.
      spend: whether the arrays may be used up; each group is, before the next one is made.
      copy: whether arrays that are not used up shall not be those that are given.
    """

    def put(x: Any, at: jax.ShapeDtypeStruct) -> jax.Array:
        if not isinstance(x, tuple):
            return jax.device_put(x, at.sharding, may_alias=spend or not copy)
        assert isinstance(at.sharding, NamedSharding)
        one = NamedSharding(at.sharding.mesh, PartitionSpec(*at.sharding.spec[1:]))
        layers = [jax.device_put(layer, one, may_alias=True) for layer in x]
        stacked = jax.jit(lambda *layers: jnp.stack(layers), out_shardings=at.sharding)(*layers)
        for layer in layers if spend else ():
            layer.delete()
        return stacked

    return jax.tree.map(put, tree, at, is_leaf=lambda x: isinstance(x, tuple))


def _jitted(step: Callable, policy: str, results: Any, options: dict[str, str] | None) -> Callable:
    """The step with its state donated; both policies take the limit of the loss, which one leaves to the host."""

    def unguarded_step(state: Any, batch: Any, frozen: Any, limit: Any) -> tuple[Any, Any]:
        return step(state, batch, frozen)

    chosen = train_step.guarded(step) if policy == "skip" else unguarded_step
    return jax.jit(chosen, donate_argnums=0, out_shardings=results, compiler_options=options)
