"""What is recorded of a training while it runs; none of it changes the result."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from glore_jax.goodput import Clock
from glore_jax.progress import say
from glore_jax.training import writers


@dataclasses.dataclass(frozen=True)
class Telemetry:
    """How a training is watched.

    Attributes:
      folder: for metrics, TensorBoard's files and traces, of this training alone; None writes none.
      name: of the training, as Weights & Biases shows it.
      clock: that its time is shared out by.
      wandb: a project of Weights & Biases; "" for none.
      profile: the first and the last step of a trace; None for none.
    """

    folder: Path | None = None
    name: str = "train"
    clock: Clock = dataclasses.field(default_factory=Clock)
    wandb: str = ""
    profile: tuple[int, int] | None = None

    @contextlib.contextmanager
    def writer(self, step: int, settings: dict[str, Any]) -> Iterator[writers.Writer]:
        """Writes the metrics of a training that goes on after a step."""

        def more(folder: Path) -> list[writers.Writer]:
            return [writers.WeightsAndBiases(self.wandb, self.name, folder)] if self.wandb else []

        with writers.opened(self.folder, step, more) as made:
            made.settings(settings)
            yield made


class Profile:
    """A trace of some steps, for xprof or TensorBoard's profiler: `xprof --logdir=FOLDER`.

    Args:
      telemetry: of the training.
      total: its steps.
    """

    def __init__(self, telemetry: Telemetry, total: int):
        self._folder, self._window, self._running = telemetry.folder, telemetry.profile, False
        if self._window and self._window[0] > total:
            say(f"{telemetry.name}: no trace, because it ends before step {self._window[0]}")

    def before(self, step: int, metrics: Any) -> None:
        """Called before a step is dispatched; begins the trace, or ends it once the last of its steps is done.

        Args:
          metrics: of the step before, to be waited for.
        """
        if self._window is None or self._folder is None:
            return
        if self._running and step > self._window[1]:
            jax.block_until_ready(metrics)
            self.close()
        if not self._running and step == self._window[0]:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def close(self) -> None:
        """Ends a trace that is under way, because the training is over or was cut."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            say(f"trace: {self._folder}/plugins/profile")
