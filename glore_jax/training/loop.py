"""The one training loop: student, value models and refiners differ by a loss and their examples."""

from __future__ import annotations

import dataclasses
import functools
import math
import signal
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from glore_jax.interrupts import Interrupted
from glore_jax.models.decoder import Decoder
from glore_jax.models.lora import LoraConfig
from glore_jax.parallel import placement, votes
from glore_jax.training import adaptation, batches, optimizer, resuming, train_step
from glore_jax.training.bookkeeping import Books, Curve


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
      params: on the devices, an adapter merged.
      curve: metrics every few steps, from the first step on.
      tokens, seconds: of this call; a training that went on from a checkpoint counts from there.
      adapter: its settings and the adapter by itself, where one was trained.
      skipped: updates that were left out (`on_bad_step`).
    """

    params: Any
    curve: Curve
    tokens: int
    seconds: float
    adapter: tuple[LoraConfig, Any] | None = None
    skipped: int = 0


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
    asked: Callable[[], bool] = lambda: False,
) -> Trained:
    """Trains on packed examples: all parameters, or a LoRA adapter on them.

    Args:
      params: start parameters, `{"decoder": ..., "value_head": ...}` as the loss wants them.
      settings: `steps` or `epochs`, `rows`, `row_length`, `checkpoint_seconds`, `on_bad_step`, the optimizer's, and
        `lora` (`training.adaptation`).
      seed: of the order of the examples, and of a new adapter.
      folder: where checkpoints of the training go; a training that was cut goes on from there.
      advance: called after every step with the tokens in the batch and the metrics so far.
      marks: ids whose rows of the embedding learn beside an adapter.
      asked: whether to stop after this step, as after SIGTERM.

    Raises:
      InputError: the rows do not divide by the devices, the model cannot have such an adapter, or a step was bad
        (`training.bookkeeping`).
      Interrupted: `asked` said so; there is a checkpoint of this step then.
    """
    begun = time.monotonic()
    total = steps_of(settings, examples)
    place = placement.make()
    place.check_rows("train.rows", settings.rows)
    start = _begin(model, params, loss, settings, total, seed, marks, place)
    with resuming.opened(folder, origin(examples, settings, total, seed)) as saved:
        state, kept = saved.restore(start.state) if saved else (start.state, {})
        books = Books(total, settings.on_bad_step == "skip", _Blame(examples, settings, seed, saved), kept)
        first, last_save = int(state.step), time.monotonic()
        vote = votes.Votes(2)
        feed = batches.epochs(examples, settings.row_length, settings.rows, seed, start=first)
        for number in range(first + 1, total + 1):
            state, metrics = start.step(state, place.put(next(feed)), start.frozen, books.limit)
            books.expect(number, metrics)
            advance(settings.rows * settings.row_length, books.curve[-1] if books.curve else {})
            stop, due = vote.of(asked(), time.monotonic() - last_save > settings.checkpoint_seconds)
            if saved and (stop or due):
                books.read()  # a state that a bad step made is not kept
                saved.save(number, state, books.kept())
                last_save = time.monotonic()
            if stop:
                raise Interrupted(signal.SIGTERM)
        books.read()
    tokens = (total - first) * settings.rows * settings.row_length
    merged = jax.jit(start.join)(state.params, start.frozen) if start.lora else state.params
    adapter = (start.lora, state.params["adapter"]) if start.lora else None
    return Trained(merged, books.curve, tokens, time.monotonic() - begun, adapter, books.skipped)


@dataclasses.dataclass(frozen=True)
class _Start:
    """Attributes: state (donated from step to step), frozen (what stays), step, join and lora (`adaptation`)."""

    state: train_step.TrainState
    frozen: Any
    step: Callable
    join: Callable
    lora: LoraConfig | None


def _begin(
    model: Decoder,
    params: Any,
    loss: Callable,
    settings: Any,
    total: int,
    seed: int,
    marks: Sequence[int],
    place: placement.Placement,
) -> _Start:
    tx = optimizer.make(settings, total)
    lora = adaptation.config_of(settings, params["decoder"])
    join = functools.partial(adaptation.join, config=lora, marks=tuple(marks))
    learning, frozen = adaptation.split(params, lora, marks, jax.random.key(seed))
    # A copy, because the state is donated and `params` stay the caller's.
    state = jax.device_put(train_step.init(learning, tx), place.whole, may_alias=False)
    frozen = jax.device_put(frozen, place.whole)
    return _Start(state, frozen, _jitted(train_step.make(model, loss, tx, join), settings.on_bad_step), join, lora)


def _jitted(step: Callable, policy: str) -> Callable:
    """The step with its state donated; both policies take the limit of the loss, which one leaves to the host."""
    if policy == "skip":
        return jax.jit(train_step.guarded(step), donate_argnums=0)
    jitted = jax.jit(step, donate_argnums=0)
    return lambda state, batch, frozen, limit: jitted(state, batch, frozen)


def origin(examples: Sequence[batches.Example], settings: Any, total: int, seed: int) -> dict[str, Any]:
    """What the checkpoints of a training must have in common with it, for its batches and draws to be the same."""
    data = zlib.crc32(b"".join(part.tobytes() for e in examples for part in (e.tokens, e.targets, e.weights)))
    return {
        "seed": seed,
        "steps": total,
        "rows": settings.rows,
        "row_length": settings.row_length,
        "examples": len(examples),
        "checksum of the examples": data,
    }


@dataclasses.dataclass
class _Blame:
    """What is said of a bad step beside its figures."""

    examples: Sequence[batches.Example]
    settings: Any
    seed: int
    saved: resuming.Checkpoints | None

    def __call__(self, number: int) -> str:
        shape = self.settings.row_length, self.settings.rows
        ids = batches.members(self.examples, *shape, self.seed, number - 1)
        newest = self.saved.newest if self.saved else None
        good = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint before it"
        return f"its batch holds the examples {'; '.join(ids)}; {good}"
