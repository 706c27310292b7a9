"""The step of a training before there are parameters: what `loop.train` computes, to be lowered for shapes alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from glore_jax.models.decoder import Decoder
from glore_jax.parallel import programs
from glore_jax.parallel.placement import Placement
from glore_jax.training import adaptation, batches, beginning


def step(
    model: Decoder, params: Any, loss: Callable, settings: Any, total: int, place: Placement, marks: Sequence[int] = ()
) -> tuple[Callable[[], jax.stages.Lowered], int]:
    """What lowers the step, and the bytes of its arguments on each device.

    Args:
      params: their shapes.
      total: steps of the training.
      model, loss, settings, marks: see `loop.train`.

    Raises:
      InputError: the rows do not divide by the devices, or the model cannot have the adapter that is asked for.
    """
    lora = adaptation.config_of(settings, params["decoder"])
    split = functools.partial(adaptation.split, config=lora, marks=tuple(marks))
    learning, frozen = jax.eval_shape(split, params, rng=jax.random.key(0))
    laid = beginning.lay(model, (learning, frozen), loss, settings, total, place, lora, marks)
    batch = programs.shapes(batches.shapes(settings.rows, settings.row_length), place.at("batch", "positions"))
    args = laid.state, batch, laid.frozen
    return functools.partial(laid.step.lower, *args, math.inf), programs.bytes_of(args)
