"""Tensors in safetensors files, read and written by byte range: no more in memory than is asked for.

A file is eight bytes with the length of a JSON header, the header (for each tensor its type, shape and the range of
its bytes), and the bytes. Nothing in it is code. A folder has one file, or several and an index that says which file
has which tensor. Plain reads rather than a memory map, because mapped pages count as memory of the process.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from glore_jax import files
from glore_jax.errors import InputError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(jnp.bfloat16)}
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
AS_TORCH = {"format": "pt"}  # what transformers asks for: axes as torch has them
NOT_FINITE = "has NaNs or infinities"  # what is said of a tensor, behind its name
_BLOCK = 64 << 20  # bytes that are read at a time
Advance = Callable[[int], None]  # is told how many tensors are done, as a progress bar wants it


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies.

    Attributes:
      path: the file.
      dtype: as safetensors names it, e.g. BF16.
      shape: its sizes.
      begin: its first byte in the file.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int


def find(folder: Path, single: str = SINGLE) -> dict[str, Tensor]:
    """The tensors of a folder by name, from the headers alone.

    Raises:
      InputError: no safetensors there, a file missing or cut short, or an index that its files do not bear out.
    """
    index = folder / f"{single}.index.json"
    if (folder / single).is_file():
        return header(folder / single)
    if not index.is_file():
        raise _none(folder, single)
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(n, str) and Path(n).name == n for n in listed.values()):
        raise InputError(f"{index}: no `weight_map` of tensor names to file names; copy the folder anew")
    names = sorted(set(listed.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"{index}: the files {', '.join(missing)} are missing; copy the folder anew")
    found = {name: header(folder / name) for name in names}
    if lost := [tensor for tensor, name in listed.items() if tensor not in found[name]]:
        raise InputError(f"{index}: {', '.join(lost)} are not in the files it names; copy the folder anew")
    return {tensor: where for tensors in found.values() for tensor, where in tensors.items()}


def _none(folder: Path, single: str) -> InputError:
    if not folder.is_dir():
        return InputError(f"{folder}: no such folder; expected one with config.json and {single}")
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLED)
    if not pickled:
        return InputError(f"{folder}: neither {single} nor {single}.index.json is there; give a Hugging Face folder")
    settings = folder / "config.json"
    scores = settings.is_file() and "ForTokenClassification" in settings.read_text(encoding="utf-8", errors="replace")
    reader = f"transformers import AutoModelFor{'TokenClassification' if scores else 'CausalLM'}"
    reader = reader if single == SINGLE else "peft import AutoPeftModelForCausalLM"
    return InputError(
        f"{folder}: only pickled weights ({', '.join(pickled)}), which run code when they are read; expected "
        f'safetensors. If you trust them, convert: python -c "from {reader} as M; '
        f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\"; copy the tokenizer too"
    )


def header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file.

    Raises:
      InputError: not a safetensors file, cut short, or with a type other than 16 and 32 bit floats.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError(f"its header has {length} bytes, the file {size}")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        found, problems = {}, []
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            tensor = Tensor(path, entry["dtype"], tuple(entry["shape"]), 8 + length + begin)
            if tensor.dtype not in DTYPES:
                problems.append(f"{name} is of type {tensor.dtype}, not one of {', '.join(DTYPES)}")
            elif not 0 <= begin <= end <= size - 8 - length:
                problems.append(f"the bytes of {name} lie outside of the file")
            elif end - begin != math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize:
                problems.append(f"{name} has {end - begin} bytes, which its shape {list(tensor.shape)} does not take")
            found[name] = tensor
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); copy it anew") from error
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}; copy it anew or convert it")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that somebody else wrote.

    Raises:
      InputError: missing, cut short, or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); copy the folder anew") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object; copy the folder anew")
    return value


def read(tensor: Tensor, index: Sequence[slice], dtype: np.dtype) -> tuple[np.ndarray, bool]:
    """A slice of a tensor, and whether all its numbers are finite.

    Only the rows asked for are read, `_BLOCK` bytes at a time; of these the other axes are cut.

    Args:
      index: a slice for each axis, of step 1.
      dtype: what the numbers are turned into.
    """
    if not tensor.shape:  # a single number
        one, finite = read(dataclasses.replace(tensor, shape=(1,)), [slice(None)], dtype)
        return one.reshape(()), finite
    stored = DTYPES[tensor.dtype]
    rows, *rest = (range(*s.indices(n)) for s, n in zip(index, tensor.shape, strict=True))
    cut = tuple(slice(r.start, r.stop) for r in rest)
    width = math.prod(tensor.shape[1:])
    out = np.empty((len(rows), *map(len, rest)), dtype)
    step = max(1, _BLOCK // max(1, width * stored.itemsize))
    finite = True
    with open(tensor.path, "rb") as file:
        for at in range(0, len(rows), step):
            count = min(step, len(rows) - at)
            file.seek(tensor.begin + (rows.start + at) * width * stored.itemsize)
            block = np.fromfile(file, stored, count * width).reshape(count, *tensor.shape[1:])[:, *cut]
            finite = finite and bool(np.isfinite(block).all())
            out[at : at + count] = block
    return out, finite


@dataclasses.dataclass(frozen=True)
class Unread:
    """An array that is made each time it is asked for, by `np.asarray`, so that a model need not be held to be copied.

    Attributes: shape, dtype; make.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], Any]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.make(), dtype)

    def then(self, change: Callable[[np.ndarray], Any], shape: tuple[int, ...] | None = None) -> Unread:
        """What a function makes of it: of the same type and, where no other is given, shape."""
        return Unread(shape or self.shape, self.dtype, lambda: change(np.asarray(self)))


@dataclasses.dataclass(frozen=True)
class Source:
    """A tensor to be written. Attributes: name; dtype, shape; array: makes it, when its turn comes."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    array: Callable[[], np.ndarray]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write(
    path: Path,
    sources: Sequence[Source],
    advance: Advance = lambda count: None,
    metadata: Mapping[str, str] = AS_TORCH,
) -> None:
    """Writes one file, a tensor at a time; `advance` is called after each."""
    kinds = {dtype: name for name, dtype in DTYPES.items()}
    head: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for source in sources:
        begin, end = end, end + source.bytes
        head[source.name] = {
            "dtype": kinds[source.dtype],
            "shape": list(source.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(head).encode()
    encoded += b" " * (-len(encoded) % 8)
    with files.replacing(path) as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for source in sources:
            array = source.array()
            if array.shape != source.shape or array.dtype != source.dtype:
                raise ValueError(f"{source.name} is {array.dtype}{array.shape}, not {source.dtype}{source.shape}")
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            advance(1)


def write_folder(
    folder: Path, sources: Iterable[Source], shard_bytes: int, advance: Advance = lambda count: None
) -> None:
    """Writes `model.safetensors`, or files of at most `shard_bytes` (or one tensor) each and their index."""
    shards: list[list[Source]] = [[]]
    for source in sources:
        if shards[-1] and sum(s.bytes for s in shards[-1]) + source.bytes > shard_bytes:
            shards.append([])
        shards[-1].append(source)
    if len(shards) == 1:
        write(folder / SINGLE, shards[0], advance)
        return
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write(folder / name, shard, advance)
    listed = {s.name: name for name, shard in zip(names, shards, strict=True) for s in shard}
    total = sum(s.bytes for shard in shards for s in shard)
    files.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": listed})
