"""A part of the examples that is not learnt from: its loss says when a training was best.

It is cut from the training's own examples, whole problems at a time; the dev split of a task, on which thresholds are
chosen, stays out of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from glore_jax.errors import InputError
from glore_jax.training import batches
from glore_jax.training.batches import Example

MARKS = 10  # times that a training is measured, evenly spread; the last one is at its end
KEEP = ("last", "best")


def check(name: str, settings: Any) -> None:
    """InputError where `keep` and `dev_share` of the settings `name` are not what they can be."""
    if settings.keep not in KEEP:
        raise InputError(f"{name}.keep={settings.keep!r}: expected one of {', '.join(KEEP)}")
    if not 0 <= settings.dev_share < 1:
        raise InputError(f"{name}.dev_share={settings.dev_share}: expected a share from 0 to below 1")
    if settings.keep == "best" and not settings.dev_share:
        raise InputError(f"{name}.keep=best: nothing to measure it on; set {name}.dev_share, to 0.1 for example")


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and those of so many of the problems, drawn by the seed."""
    names = sorted({e.problem for e in examples})
    count = math.ceil(share * len(names))
    if count == len(names):
        raise InputError(f"train.dev_share={share}: leaves nothing to learn from, of {len(names)} problems")
    drawn = {names[i] for i in np.random.default_rng((seed, 1)).permutation(len(names))[:count]}
    return [e for e in examples if e.problem not in drawn], [e for e in examples if e.problem in drawn]


@dataclasses.dataclass(frozen=True)
class Dev:
    """Measures a training under way.

    Attributes:
      examples: that are held out.
      rows, row_length: of a batch.
      total: steps of the training.
      sums: `(what learns, what stays, batch) -> (loss, weight)`, jitted, both summed over positions.
      put: places a batch on the devices.
    """

    examples: Sequence[Example]
    rows: int
    row_length: int
    total: int
    sums: Callable
    put: Callable

    def due(self, step: int) -> bool:
        return bool(self.examples) and (step % max(1, self.total // MARKS) == 0 or step == self.total)

    def loss(self, params: Any, frozen: Any) -> float:
        """The mean over all weighted positions."""
        parts = batches.once(self.examples, self.row_length, self.rows)
        found = np.array([jax.device_get(self.sums(params, frozen, self.put(batch))) for batch in parts])
        total, weight = found.sum(axis=0)
        return float(total / max(weight, 1.0))
