"""The one training loop: student, value models and refiners differ by a loss and their examples."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from glore_jax.errors import InputError
from glore_jax.interrupts import Interrupted
from glore_jax.models import stacking
from glore_jax.models.decoder import Decoder
from glore_jax.models.lora import LoraConfig
from glore_jax.parallel import placement, votes
from glore_jax.parallel.placement import Placement
from glore_jax.training import batches, beginning, rates, resuming, train_step
from glore_jax.training.beginning import Beginning
from glore_jax.training.bookkeeping import Books, Curve
from glore_jax.training.dev import Dev
from glore_jax.training.rates import Rates
from glore_jax.training.telemetry import Profile, Telemetry


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
      params: on the devices, an adapter merged.
      curve: metrics every few steps, from the first step on.
      tokens, seconds: of this call; a training that went on from a checkpoint counts from there.
      adapter: its settings and the adapter by itself, where one was trained.
      skipped: updates that were left out (`on_bad_step`).
      dev: steps and the loss on what is held out.
    """

    params: Any
    curve: Curve
    tokens: int
    seconds: float
    adapter: tuple[LoraConfig, Any] | None = None
    skipped: int = 0
    dev: tuple[tuple[int, float], ...] = ()


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
    telemetry: Telemetry | None = None,
    held_out: Sequence[batches.Example] = (),
    place: Placement | None = None,
    spend: bool = False,
) -> Trained:
    """Trains on packed examples: all parameters, or a LoRA adapter on them.

    Args:
      params: start parameters, `{"decoder": ..., "value_head": ...}` as the loss wants them.
      settings: `steps` or `epochs`, `rows`, `row_length`, `micro_batches`, `checkpoint_seconds`, `checkpoints`,
        `on_bad_step`, the optimizer's, `lora` (`training.adaptation`), `scan` (`models.stacking`) and `remat`
        (`models.execution`).
      seed: of the order of the examples, and of a new adapter.
      folder: where checkpoints of the training go; a training that was cut goes on from there.
      advance: called after every step with the tokens in the batch and the metrics so far.
      marks: ids whose rows of the embedding learn beside an adapter.
      asked: whether to stop after this step, as after SIGTERM.
      telemetry: how it is watched; None: not at all.
      held_out: examples to measure it on (`training.dev`).
      place: the devices; None: all, with the whole model on each.
      spend: whether `params` may be used up, so that the memory they take becomes the training's.

    Raises:
      InputError: the rows or the model cannot be split over the devices, the model cannot have such an adapter, or a
        step was bad (`training.bookkeeping`).
      Interrupted: `asked` said so; there is a checkpoint of this step then.
    """
    begun, telemetry = time.monotonic(), telemetry or Telemetry()
    total = steps_of(settings, examples)
    place = place or placement.make()
    put = functools.partial(_put, place)
    beginning.check("train", settings, place)
    with telemetry.clock.spend("steps"):
        start = beginning.begin(model, params, loss, settings, total, place, jax.random.key(seed), marks, spend)
        del params  # where they are spent, the first step takes them
        with resuming.opened(folder, origin(examples, settings, total, seed), settings.checkpoints) as saved:
            state, kept = saved.restore(start.state) if saved else (start.state, {})
            first, speed = int(state.step), _rates(model, start, settings)
            with telemetry.writer(first, told(settings, total, speed)) as writer:
                blame = _Blame(examples, settings, seed, saved)
                books = Books(total, settings.on_bad_step == "skip", blame, kept, writer.scalars, speed.of)
                feed = map(put, batches.epochs(examples, settings.row_length, settings.rows, seed, start=first))
                measured = Dev(held_out, settings.rows, settings.row_length, total, start.laid.sums, put)
                run = _Run(settings, total, start, feed, books, saved, telemetry, advance, asked, measured)
                state = run.steps(state, first)
            if settings.keep == "best" and books.best != total:
                state = _read_best(saved, books, state)
        merged = start.laid.finish(state.params, start.frozen)
    tokens = (total - first) * settings.rows * settings.row_length
    adapter = (start.lora, stacking.unstack_layers(state.params)["adapter"]) if start.lora else None
    return Trained(merged, books.curve, tokens, time.monotonic() - begun, adapter, books.skipped, tuple(books.dev))


def _put(place: Placement, batch: Any) -> Any:
    return place.put(batch, "batch", "positions")


def _read_best(saved: resuming.Checkpoints | None, books: Books, state: Any) -> Any:
    if saved is None or books.best is None:
        raise ValueError("the best state is kept as a checkpoint and chosen on examples: a folder and some are needed")
    try:
        return saved.read(books.best, state)[0]
    except resuming.DamagedError as error:
        path = saved.folder / str(books.best)
        raise InputError(
            f"{path}: the best state of the training {error}; remove {saved.folder} to train anew"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Run:
    """The steps of a training, with all that goes on around them."""

    settings: Any
    total: int
    start: Beginning
    feed: Iterator[Any]
    books: Books
    saved: resuming.Checkpoints | None
    telemetry: Telemetry
    advance: Callable[[int, dict[str, float]], None]
    asked: Callable[[], bool]
    held_out: Dev

    def steps(self, state: train_step.TrainState, first: int) -> train_step.TrainState:
        """The state after the last step, from that after step `first`."""
        settings, books, last_save, vote = self.settings, self.books, time.monotonic(), votes.Votes(2)
        metrics: Any = None
        with contextlib.closing(Profile(self.telemetry, self.total)) as profile:
            for number in range(first + 1, self.total + 1):
                batch, waited = self._next_batch()
                profile.before(number, metrics)
                state, metrics = self.start.laid.step(state, batch, self.start.frozen, books.limit)
                books.expect(number, metrics, waited)
                self.advance(settings.rows * settings.row_length, books.curve[-1] if books.curve else {})
                best = self._measure(number, state)
                stop, due = vote.of(self.asked(), time.monotonic() - last_save > settings.checkpoint_seconds)
                if stop or due or best:
                    self._save(number, state)
                    last_save = time.monotonic()
                if stop:
                    raise Interrupted(signal.SIGTERM)
        books.read()
        return state

    def _measure(self, number: int, state: train_step.TrainState) -> bool:
        """Measures the state on what is held out, if it is time; whether it has to be saved as the best so far."""
        if not self.held_out.due(number):
            return False
        lowest = self.books.measure(number, self.held_out.loss(state.params, self.start.frozen))
        return lowest and self.settings.keep == "best"

    def _next_batch(self) -> tuple[Any, float]:
        """A batch on the devices, and the seconds that it was waited for."""
        began = time.monotonic()
        with self.telemetry.clock.spend("input"):
            batch = next(self.feed)
        return batch, time.monotonic() - began

    def _save(self, number: int, state: train_step.TrainState) -> None:
        if self.saved is not None:
            self.books.read()  # a state that a bad step made is not kept
            with self.telemetry.clock.spend("checkpoint"):
                best = self.books.best if self.settings.keep == "best" else None
                self.saved.save(number, state, self.books.kept(), best)
            self.telemetry.clock.keep()


def _rates(model: Decoder, start: Beginning, settings: Any) -> Rates:
    decoder = rates.multiplied(start.frozen), rates.multiplied(start.state.params)
    operations = rates.operations(model.config, decoder[1], decoder[0], settings.row_length)
    return Rates(settings.rows * settings.row_length, operations)


def told(settings: Any, total: int, speed: Rates) -> dict[str, Any]:
    """What writers of metrics are told of a training."""
    return {
        **settings.to_dict(),
        "steps": total,
        "operations a token": speed.operations,
        "operations a token, formula": rates.FORMULA,
        "devices": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
    }


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
