"""The one training loop: student, value models and refiners differ by a loss and their examples."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from glore_jax.errors import InputError
from glore_jax.models.decoder import Decoder
from glore_jax.models.lora import LoraConfig
from glore_jax.parallel import placement
from glore_jax.training import adaptation, batches, checkpoints, optimizer, train_step

Curve = list[dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
      params: on the devices, an adapter merged.
      curve: metrics every few steps, from the first step on.
      tokens, seconds: of this call; a training that went on from a checkpoint counts from there.
      adapter: its settings and the adapter by itself, where one was trained.
    """

    params: Any
    curve: Curve
    tokens: int
    seconds: float
    adapter: tuple[LoraConfig, Any] | None = None


def steps_of(settings: Any, examples: Sequence[batches.Example]) -> int:
    """Length of a training: `settings.steps`, or `settings.epochs` passes where steps are 0."""
    if settings.steps:
        return settings.steps
    tokens = sum(len(e) for e in examples)
    return max(1, math.ceil(settings.epochs * tokens / (settings.rows * settings.row_length)))


def train(
    model: Decoder,
    params: Any,
    loss: Callable,
    examples: Sequence[batches.Example],
    settings: Any,
    seed: int,
    folder: Path | None = None,
    advance: Callable[[int, dict[str, float]], None] = lambda tokens, metrics: None,
    marks: Sequence[int] = (),
) -> Trained:
    """Trains on packed examples: all parameters, or a LoRA adapter on them.

    Args:
      params: start parameters, `{"decoder": ..., "value_head": ...}` as the loss wants them.
      settings: `steps` or `epochs`, `rows`, `row_length`, `checkpoint_seconds`, the optimizer's, and `lora`
        (`training.adaptation`).
      seed: of the order of the examples, and of a new adapter.
      folder: where checkpoints of the training go; a training that was cut goes on from there.
      advance: called after every step with the tokens in the batch and the metrics so far.
      marks: ids whose rows of the embedding learn beside an adapter.

    Raises:
      InputError: the rows do not divide by the devices, the model cannot have such an adapter, or the loss is no longer
        a number.
    """
    begun = time.monotonic()
    total = steps_of(settings, examples)
    tx = optimizer.make(settings, total)
    place = placement.make()
    place.check_rows("train.rows", settings.rows)
    lora = adaptation.config_of(settings, params["decoder"])
    join = functools.partial(adaptation.join, config=lora, marks=tuple(marks))
    start, frozen = adaptation.split(params, lora, marks, jax.random.key(seed))
    # A copy, because the state is donated from step to step and `params` stay the caller's.
    state = jax.device_put(train_step.init(start, tx), place.whole, may_alias=False)
    frozen = jax.device_put(frozen, place.whole)
    step = jax.jit(train_step.make(model, loss, tx, join), donate_argnums=0)
    progress = checkpoints.Progress(folder) if folder is not None else None
    state, curve = progress.restore(state) if progress else (state, [])
    first = int(state.step)
    every = max(1, total // 50)
    saved = time.monotonic()
    pending: tuple[int, Any] | None = None
    feed = batches.epochs(examples, settings.row_length, settings.rows, seed, start=first)
    for number in range(first + 1, total + 1):
        state, metrics = step(state, place.put(next(feed)), frozen)
        # The metrics of the step before are read while this one runs, so the device never waits.
        if pending is not None:
            _read(pending, curve, every, total)
        advance(settings.rows * settings.row_length, curve[-1] if curve else {})
        pending = (number, metrics)
        if progress and time.monotonic() - saved > settings.checkpoint_seconds:
            _read(pending, curve, every, total)
            pending = None
            progress.save(number, state, curve)
            saved = time.monotonic()
    if pending is not None:
        _read(pending, curve, every, total)
    if progress:
        progress.close()
    tokens = (total - first) * settings.rows * settings.row_length
    merged = jax.jit(join)(state.params, frozen) if lora else state.params
    adapter = (lora, state.params["adapter"]) if lora else None
    return Trained(merged, curve, tokens, time.monotonic() - begun, adapter)


def _read(pending: tuple[int, Any], curve: Curve, every: int, total: int) -> None:
    number, metrics = pending
    values = {name: float(value) for name, value in metrics.items()}
    if not math.isfinite(values["loss"]):
        raise InputError(f"the loss is {values['loss']} at step {number} of {total}; lower train.learning_rate")
    if number % every == 0 or number == total:
        curve.append({"step": number, **values})
