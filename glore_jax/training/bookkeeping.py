"""The metrics of a training as the host reads them: one step late, so that the device never waits for the host."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax

from glore_jax.errors import InputError

Curve = list[dict[str, float]]

ON_BAD_STEP = ("stop", "skip")
# A loss so many times the first one (or 1 nat, where that is less) has exploded. The first two are read too late to be
# judged by it, which is harmless: they are what it is reckoned from.
EXPLODED = 10.0
IN_A_ROW = 10  # updates left out one after the other before the training stops after all


def check_policy(name: str, policy: str) -> None:
    """InputError where `on_bad_step` of the settings `name` is none of those there are."""
    if policy not in ON_BAD_STEP:
        raise InputError(f"{name}.on_bad_step={policy!r}: expected one of {', '.join(ON_BAD_STEP)}")


class Books:
    """What the host knows of a training under way.

    Args:
      total: steps of the training.
      skips: whether the step leaves a bad update out, where the training stops otherwise.
      blame: says what was in the batch of a step and which checkpoint is good, for errors.
      kept: what `kept` gave when the training was cut.
      write: is given the metrics of every step and how fast it was.
      rates: of a step, by the seconds that it took.

    Attributes:
      curve: metrics every few steps, from the first step on.
      skipped: updates that were left out.
      dev: steps and the loss on what is held out.
    """

    def __init__(
        self,
        total: int,
        skips: bool,
        blame: Callable[[int], str],
        kept: dict[str, Any],
        write: Callable[[int, dict[str, float]], None] = lambda number, values: None,
        rates: Callable[[float], dict[str, float]] = lambda seconds: {},
    ):
        self.curve: Curve = list(kept.get("curve", []))
        self.skipped: int = kept.get("skipped", 0)
        self.dev: list[tuple[int, float]] = [(step, loss) for step, loss in kept.get("dev", [])]
        self._measured: dict[str, float] = {}  # what is written with the step that is read next
        self._in_a_row: int = kept.get("in_a_row", 0)
        self._first: float | None = kept.get("first_loss")
        self._total, self._skips, self._blame = total, skips, blame
        self._write, self._rates = write, rates
        self._last_read: float | None = None  # when; the first step of a run has nothing to be measured from
        self._every = max(1, total // 50)
        self._pending: tuple[int, Any, float] | None = None

    @property
    def limit(self) -> float:
        """The loss from which on a step is bad."""
        return math.inf if self._first is None else EXPLODED * max(self._first, 1.0)

    def expect(self, number: int, metrics: Any, input_seconds: float) -> None:
        """Takes the metrics of a step that was just dispatched; reads those of the step before.

        Args:
          input_seconds: for which the step waited for its batch.

        Raises:
          InputError: see `read`.
        """
        self.read()
        self._pending = number, metrics, input_seconds

    def read(self) -> None:
        """Waits for the last step that was dispatched and takes its metrics in.

        Raises:
          InputError: its loss or its gradients are no numbers, or the loss has exploded; or updates were left out too
            many times in a row.
        """
        if self._pending is None:
            return
        number, metrics, input_seconds = self._pending
        self._pending = None
        found = jax.device_get(metrics)
        values = {name: float(value) for name, value in found.items() if value.ndim == 0}
        self._write(number, values | by_prefix(found) | self._speed(input_seconds) | self._measured)
        self._measured = {}
        bad = values.pop("skipped") > 0 if self._skips else is_bad(values, self.limit)
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if bad:
            self._judge(number, values)
        elif number % self._every == 0 or number == self._total:
            self.curve.append({"step": number, **values})
        if self._first is None and not bad:
            self._first = values["loss"]

    def _speed(self, input_seconds: float) -> dict[str, float]:
        now = time.monotonic()
        before, self._last_read = self._last_read, now
        return {"input_seconds": input_seconds, **(self._rates(now - before) if before is not None else {})}

    def _judge(self, number: int, values: dict[str, float]) -> None:
        """Counts a bad step, or raises."""
        found = f"the loss is {values['loss']:.6g} and the gradient norm {values['gradient_norm']:.6g}"
        if not self._skips:
            advice = "lower train.learning_rate, or leave such updates out with train.on_bad_step=skip"
        elif self._in_a_row == IN_A_ROW:
            found += f", the {IN_A_ROW}th bad step in a row"
            advice = "lower train.learning_rate"
        else:
            self.skipped += 1
            return
        raise InputError(f"{found} at step {number} of {self._total}; {self._blame(number)}; {advice}")

    def measure(self, number: int, loss: float) -> bool:
        """Takes in the loss on what is held out, after the step that was just dispatched; whether none was lower."""
        best = all(loss < before for _, before in self.dev)
        self.dev.append((number, loss))
        self._measured = {"dev_loss": loss}
        return best

    @property
    def best(self) -> int | None:
        """The step of the lowest loss on what is held out, the first of such."""
        return min(self.dev, key=lambda point: point[1])[0] if self.dev else None

    def kept(self) -> dict[str, Any]:
        """As JSON, all that a training that goes on needs of this."""
        return {
            "curve": self.curve,
            "skipped": self.skipped,
            "dev": self.dev,
            "in_a_row": self._in_a_row,
            "first_loss": self._first,
        }


def by_prefix(metrics: dict[str, Any]) -> dict[str, float]:
    """Accuracy of a value model by the number of steps that are judged, of lengths that have a label in the batch.

    >>> by_prefix({"right_by_prefix": [3.0, 0.0, 1.0], "weight_by_prefix": [4.0, 0.0, 1.0]})
    {'accuracy_by_prefix/1': 0.75, 'accuracy_by_prefix/3': 1.0}
    """
    pairs = zip(metrics.get("right_by_prefix", ()), metrics.get("weight_by_prefix", ()), strict=True)
    return {
        f"accuracy_by_prefix/{n}": float(right / weight) for n, (right, weight) in enumerate(pairs, 1) if weight > 0
    }


def is_bad(values: dict[str, float], limit: float) -> bool:
    """Whether a step is one to stop at, from its metrics; `train_step.guarded` asks the same on the device."""
    return not (math.isfinite(values["gradient_norm"]) and values["loss"] <= limit and math.isfinite(values["loss"]))
