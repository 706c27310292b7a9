"""What the TPU compiler decides before it makes machine code: the order of operations, collectives, and memory.

Machine code takes by far the most of a compilation, 20 to 60 times what comes before it, and changes none of these.
There is no compiler option to leave it out, so what XLA dumps of the program is read as soon as memory is assigned.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
from jax.experimental.layout import Format, Layout

from glore_jax.parallel.programs import Memory, compile

# Of the files that XLA dumps the last one before machine code, and those that are read.
_LAST = "after_optimizations_after_buffer_assignment.txt"
_MEMORY, _TEXT = "after_optimizations-buffer-assignment.txt", "after_optimizations.txt"
_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (.*):$", re.MULTILINE)
_RESULT = re.compile(r"\w+\[[\d,]*\]\{([\d,]*)(?::T((?:\([\d,]+\))+))?[^}]*\}")
_WAIT = 0.2  # seconds between two looks


def plan(lowered: jax.stages.Lowered) -> tuple[Memory, str]:
    """Memory, and the text of the optimised program (HLO).

    The compiler works on in a thread of its own: the process should end when it has what it needs, by `os._exit`.

    Raises:
      TooLarge: a device has no room for the program.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # which the compiler still writes to
        failed: list[Exception] = []

        def work() -> None:
            try:
                compile(lowered, {"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
            except Exception as error:  # raised where the plan is waited for
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive() and not _found(folder, _LAST):
            time.sleep(_WAIT)
        if failed:
            raise failed[0]
        return memory(_read(folder, _MEMORY)), _read(folder, _TEXT)


def memory(text: str) -> Memory:
    """Bytes on each device, of what XLA says of its buffers; what other memory than the main one holds is left out.

    >>> memory('''BufferAssignment:
    ... allocation 0: size 512, thread-local:
    ... allocation 1: size 64, parameter 0, shape |f32[16]| at ShapeIndex {}, maybe-live-out:
    ... allocation 2: size 32, output shape is |(f32[16])|, maybe-live-out:
    ... allocation 3: size 128, preallocated-temp:
    ... allocation 4: size 256, color 1, preallocated-temp:
    ... ''')
    Memory(arguments=64, results=96, temporaries=128, peak=224)
    """
    arguments = results = temporaries = total = 0
    for digits, traits in _ALLOCATION.findall(text):
        if "thread-local" in traits or re.match(r"color [1-9]", traits):
            continue
        bytes_ = int(digits)
        total += bytes_
        arguments += bytes_ * ("parameter " in traits)
        results += bytes_ * ("maybe-live-out" in traits)
        temporaries += bytes_ * ("preallocated-temp" in traits)
    return Memory(arguments, results, temporaries, total)


def formats(text: str, at: Any) -> Any:
    """How the results of a program lie in memory, as the compiler chose it.

    Args:
      text: of `plan`.
      at: a tree of their shardings.
    """
    results = text.partition("\n")[0].partition("entry_computation_layout={")[2].partition("->")[2]
    layouts = list(map(_layout, _RESULT.findall(results)))
    shardings, tree = jax.tree.flatten(at)
    return tree.unflatten([Format(*pair) for pair in zip(layouts, shardings, strict=True)])


def _layout(found: tuple[str, str]) -> Layout:
    """
    >>> _layout(("1,2,0", "(8,128)(2,1)"))
    Layout(major_to_minor=(0, 2, 1), tiling=((8, 128), (2, 1)), sub_byte_element_size_in_bits=0)
    """
    axes, tiles = ([tuple(map(int, part.split(","))) for part in re.findall(r"[\d,]+", words)] for words in found)
    return Layout(axes[0][::-1] if axes else (), tuple(tiles) or None)


def _found(folder: str, ending: str) -> list[Path]:
    return sorted(Path(folder).glob(f"*{ending}"))


def _read(folder: str, ending: str) -> str:
    return max(_found(folder, ending), key=lambda path: path.stat().st_size).read_text()
