"""The step of a training before there are parameters: what `loop.train` computes, lowered for shapes alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from glore_jax.models.decoder import Decoder
from glore_jax.parallel import programs
from glore_jax.parallel.placement import Placement
from glore_jax.training import adaptation, batches, optimizer, train_step


def lower(
    model: Decoder, params: Any, loss: Callable, settings: Any, total: int, place: Placement, marks: Sequence[int] = ()
) -> tuple[jax.stages.Lowered, int]:
    """The step, and the bytes of its arguments on each device.

    Args:
      params: their shapes.
      total: steps of the training.
      model, loss, settings, marks: see `loop.train`.

    Raises:
      InputError: the rows do not divide by the devices, or the model cannot have the adapter that is asked for.
    """
    lora = adaptation.config_of(settings, params["decoder"])
    join = functools.partial(adaptation.join, config=lora, marks=tuple(marks))
    split = functools.partial(adaptation.split, config=lora, marks=tuple(marks))
    learning, frozen = jax.eval_shape(split, params, rng=jax.random.key(0))
    tx = optimizer.make(settings, total)
    state = jax.eval_shape(lambda p: train_step.init(p, tx), learning)
    step = jax.jit(train_step.make(model, loss, tx, join), donate_argnums=0)
    batch = batches.shapes(settings.rows, settings.row_length)
    args = programs.shapes(state, place.whole), programs.shapes(batch, place.at("batch"))
    args = *args, programs.shapes(frozen, place.whole)
    return step.lower(*args), programs.bytes_of(args)
