"""Compiled programs: what they take of a device, what they move, and whether two are the same."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator
from typing import Any

import jax

# So that a TPU v5p gathers weights while it multiplies; other TPUs do so by themselves.
_OPTIONS = {
    "TPU v5": {"xla_enable_async_all_gather": "true", "xla_tpu_enable_async_collective_fusion": "true"},
}


class TooLarge(Exception):
    """A program that a device has no room for; says what the compiler said."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
      arguments, results: of which donated arguments and the results that take their place are the same bytes.
      temporaries: what the program needs beside them while it runs.
      peak: most that is taken at one time.
    """

    arguments: int
    results: int
    temporaries: int
    peak: int


def options(device: Any) -> dict[str, str] | None:
    """What the compiler is asked for beyond its defaults, on devices of this kind."""
    return _OPTIONS.get(device.device_kind)


def compile(lowered: jax.stages.Lowered, options: dict[str, Any] | None = None) -> jax.stages.Compiled:
    """Args: options: of the compiler, beside those of the program. Raises: TooLarge."""
    with refusing():
        return lowered.compile(compiler_options=options)


def made(lowered: jax.stages.Lowered) -> tuple[Memory, str]:
    """Memory and text of the compiled program. Raises: TooLarge."""
    compiled = compile(lowered)
    return memory(compiled), compiled.as_text() or ""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """TooLarge in the place of what JAX raises where the compiler finds no room."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TooLarge(str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")) from None


def memory(compiled: jax.stages.Compiled) -> Memory:
    found: Any = compiled.memory_analysis()
    parts = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return Memory(*parts, found.peak_memory_in_bytes)


def shapes(tree: Any, at: Any) -> Any:
    """Arrays, or their shapes, as shapes that lie somewhere.

    Args:
      at: a sharding for all, or a tree of them as `tree`, or as its top is.
    """
    at = jax.tree.broadcast(at, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, at)


def bytes_of(tree: Any) -> int:
    """Bytes on each device of shapes that lie somewhere."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def fingerprint(text: str) -> str:
    """Sixteen hex digits that are the same for programs that compute the same in the same way.

    Names, numbers of instructions, and what a program says of the source that it came from do not count: functions can
    be renamed and moved. The version of the compiler counts.

    Args:
      text: of an optimised program, as `compiled.as_text()` gives it.
    """
    head, *rest = text.split("\n")
    # Before the first computation stand tables of files and functions.
    start = next((i for i, line in enumerate(rest) if line.endswith("{")), 0)
    kept = "\n".join([re.sub(r"^HloModule [^,]*", "HloModule", head), *rest[start:]])
    kept = re.sub(
        r",? ?\b(?:metadata|frontend_attributes|origin)=\{(?:[^{}\"]|\"(?:[^\"\\]|\\.)*\"|\{[^{}]*\})*\}", "", kept
    )
    kept = re.sub(r"^((?:ENTRY )?%[\w.\-]+) \(.*\) -> ", r"\1 -> ", kept, flags=re.MULTILINE)  # arguments by name
    kept = re.sub(r",? ?\b(?:channel_id|stack_frame_id)=\d+", "", kept)
    numbers: dict[str, str] = {}
    kept = re.sub(r"%[\w.\-]+", lambda name: numbers.setdefault(name[0], f"%{len(numbers)}"), kept)
    return hashlib.sha256(kept.encode()).hexdigest()[:16]
