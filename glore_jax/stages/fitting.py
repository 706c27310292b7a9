"""The cheapest change with which a step has room on its devices.

Tried are, from what costs least on: less that is computed together or kept (weights of the sampler in eight bits, too),
models split over the devices, more chips.
What parameters and cache alone leave no room for is passed over; of the others the compiler says whether it fits.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from glore_jax.configuration import PREFIX
from glore_jax.errors import InputError
from glore_jax.parallel import programs as parallel_programs
from glore_jax.parallel import topologies
from glore_jax.parallel.topologies import Slice
from glore_jax.stages import programs, taking_base
from glore_jax.stages.programs import TRAININGS, Run

_TRIED = 8  # compilations, of up to a few minutes each


@dataclasses.dataclass(frozen=True)
class Change:
    """Attributes: keys (of the configuration, and their new values), slice."""

    keys: dict[str, Any]
    slice: Slice
    topology: str = ""  # where the slice is another one

    @property
    def text(self) -> str:
        """As it is typed."""
        words = [f"{PREFIX}{key}={_typed(value)}" for key, value in self.keys.items()]
        return " ".join([*words, *([f"--topology={self.topology}"] if self.topology else [])])

    def as_dict(self) -> dict[str, Any]:
        return {"keys": self.keys, "topology": self.slice.topology, "typed": self.text}


def cheapest(config: ConfigDict, slice_: Slice, stage: str, made: Callable = parallel_programs.made) -> Change | None:
    """The first change that fits; None where none of those that were tried does; `made`: see `programs.compile`."""
    tried = 0
    for change in _changes(config, slice_, stage):
        if tried == _TRIED:
            return None
        changed = copy.deepcopy(config)
        changed.update_from_flattened_dict(change.keys)
        try:
            run = Run(changed, change.slice, topologies.devices(change.slice))
            program = run.program(stage)
        except InputError:  # rows or parts of the model that cannot be split so
            continue
        if program.arguments + program.beside > change.slice.chip.memory:
            continue
        tried += 1
        if not programs.compile(run, program, made).refusal:
            return change
    return None


def _changes(config: Any, slice_: Slice, stage: str) -> Iterator[Change]:
    less = list(_less_at_once(config, stage))
    yield from (Change(keys, slice_) for keys in less)
    split = list(_split(config, slice_, stage))
    yield from (Change(keys, slice_) for keys in split)
    both = (more | keys for more in split for keys in less[:-3:-1] if not more.keys() & keys.keys())
    yield from (Change(keys, slice_) for keys in both)
    for larger in topologies.larger(slice_):
        yield from (Change(keys, larger, larger.topology) for keys in ({}, *_split(config, larger, stage)))


def _split(config: Any, slice_: Slice, stage: str) -> Iterator[dict[str, Any]]:
    """Keys that split the model over the chips of a slice, with as many rows as these need."""
    model, _ = taking_base.planned(config)
    rows = f"{stage}.train.rows" if stage in TRAININGS else "sampling.sources"
    count = config[stage].train.rows if stage in TRAININGS else config.sampling.sources
    for preset, parts in (("fsdp", 1), ("tensor", math.gcd(model.num_kv_heads, slice_.chips))):
        if config.sharding.preset == preset:
            continue
        keys: dict[str, Any] = {"sharding.preset": preset}
        if preset == "tensor":
            keys["sharding.tensor"] = parts
            if model.vocab_size % parts:
                keys["sharding.rules"] = (*config.sharding.rules, "vocab=none")
        groups = slice_.chips // parts
        yield keys | ({rows: math.ceil(count / groups) * groups} if count % groups else {})


def _typed(value: Any) -> str:
    """As the command line reads it: `a,b,` is a tuple."""
    return "".join(f"{part}," for part in value) if isinstance(value, tuple) else str(value)


def _less_at_once(config: Any, stage: str) -> Iterator[dict[str, Any]]:
    """Keys by which less is computed together or kept.

    A training stays what it is as long as its batches come in parts, whose gradients are summed. That sum takes memory
    too, so the last resort are smaller batches.
    """
    if stage in TRAININGS:
        settings, key = config[stage].train, f"{stage}.train"
        parts = [{f"{key}.micro_batches": settings.micro_batches * n} for n in (2, 4, 16)]
        yield from parts
        less = {} if settings.remat == "full" else {f"{key}.remat": "full"}
        if less:
            yield less
            yield less | parts[-1]
        if settings.rows % 8 == 0:
            yield less | {f"{key}.rows": settings.rows // 8}
        return
    if stage == "prefill":
        yield from ({"sampling.sources": config.sampling.sources // n} for n in (2, 4) if config.sampling.sources >= n)
    else:
        slots = config.sampling.slots
        yield from ({"sampling.slots": slots // n} for n in (2, 4, 8) if slots >= n)
    if config.sampling.weights == "same":
        yield {"sampling.weights": "int8"}
