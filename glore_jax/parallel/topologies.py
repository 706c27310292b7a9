"""Slices of TPU pods, as the TPU compiler knows them: it compiles for them where there is no TPU.

A slice is named as libtpu names it, by chip and shape (`v5e:16x16`), or as clouds do, by chip and size (`v5e-256`).
The size of a v5p counts cores, of which a chip has two that compile as one device: `v5p-64` has 32 chips.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

from glore_jax.configuration import nearest
from glore_jax.errors import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip; rates are the published peaks (cloud.google.com/tpu/docs).

    Attributes:
      memory: bytes that a program may use, a little under what the chip has; the compiler names them when it refuses.
      flops: a second, products of bfloat16.
      memory_rate: bytes a second between the chip and its memory.
      link_rate: bytes a second that a chip sends over all its links to its neighbours together.
      cores: how many of these a cloud counts a chip as.
      shapes: of slices that are rented out, the smallest first.
    """

    memory: int
    flops: float
    memory_rate: float
    link_rate: float
    cores: int
    shapes: tuple[str, ...]


_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
CHIPS = {
    "v5e": Chip(int(15.75 * GIB), 197e12, 819e9, 200e9, 1, _FLAT),
    "v5p": Chip(int(95.74 * GIB), 459e12, 2765e9, 600e9, 2, _CUBES),
    "v6e": Chip(int(31.25 * GIB), 918e12, 1600e9, 400e9, 1, _FLAT),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """Some chips of a pod that are linked to each other.

    Attributes: kind (a key of `CHIPS`), shape (chips along each axis).
    """

    kind: str
    shape: str

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def topology(self) -> str:
        """As libtpu names it."""
        return f"{self.kind}:{self.shape}"

    @property
    def name(self) -> str:
        """As clouds name it."""
        return f"{self.kind}-{self.chips * self.chip.cores}"


def parse(text: str) -> Slice:
    """A slice by either of its names.

    Raises:
      InputError: no such chip or size.

    >>> parse("v5e:16x16").name, parse("v5p-64").topology
    ('v5e-256', 'v5p:2x4x4')
    """
    kind, sign, size = re.fullmatch(r"(\w*)([:-]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if kind not in CHIPS:
        raise InputError(f"--topology={text}: no chip {kind!r}; {nearest(kind, CHIPS)}")
    slices = [Slice(kind, shape) for shape in CHIPS[kind].shapes]
    found = next((s for s in slices if text in (s.topology, s.name)), None)
    if found is None and sign == ":" and re.fullmatch(r"\d+x\d+(x\d+)?", size) and Slice(kind, size).chips:
        found = Slice(kind, size)  # one that is not listed; libtpu knows whether it can be
    if found is None:
        listed = ", ".join(f"{s.topology} ({s.name})" for s in slices)
        raise InputError(f"--topology={text}: no such slice; there are {listed}")
    return found


def larger(slice_: Slice) -> list[Slice]:
    """The slices of the same chips that have more of them, the smallest first."""
    return [s for shape in slice_.chip.shapes if (s := Slice(slice_.kind, shape)).chips > slice_.chips]


def devices(slice_: Slice) -> list[Any]:
    """The devices of a slice, for a mesh to compile for. Nothing can be computed on them.

    Raises:
      InputError: libtpu is not installed, or knows no such slice.
    """
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "compiling for a TPU needs its compiler (libtpu); install it with: pip install 'glore_jax[tpu-compile]' "
            "(in a checkout: .venv/bin/python -m pip install -e '.[tpu-compile]'), on Linux"
        )
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no TPU is taken, so processes need not wait in line
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # nor asked for: without these libtpu complains that there is none
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", slice_.name)
    few = {"chips_per_host_bounds": (1, 1, 1)} if slice_.chips == 1 else {}
    try:
        return list(topologies.get_topology_desc(slice_.topology, platform="tpu", **few).devices)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"--topology={slice_.topology}: libtpu has no such slice: {error}") from error
