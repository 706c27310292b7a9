"""Files that are whole or absent: atomic writes, checksums, and tables of records as Parquet.

Everything is written beside its name and renamed, so that a reader, a crash or a full disk never
meets half a file. Tables are plain Parquet (zstd): pandas, Polars, DuckDB and `datasets` open them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import gc
import hashlib
import io
import itertools
import json
import os
import shutil
import time
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glore_jax.errors import InputError

MANIFEST = "manifest.json"
PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_SMALL = 1 << 18  # about the largest vocabulary of a language model
_SCALARS = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}

T = TypeVar("T")


def unwritable(path: Path, error: Exception) -> InputError:
    """The error to raise where `path` cannot be written: disk full, no permission, a file in the way."""
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"{path}: cannot be written ({reason}); everything finished before it is intact. "
        "Free space or choose a writable place, then type the same command again to go on"
    )


def full(error: Exception) -> bool:
    """Whether the disk is full, or may not be written to; libraries wrap the system's error and keep its text."""
    return getattr(error, "errno", None) in _FULL or os.strerror(errno.ENOSPC) in str(error)


def damaged(path: Path, problem: str) -> InputError:
    """The error to raise where an artifact is not what its stage wrote; says how to make it again."""
    for folder in path.parents:
        if folder.name.endswith(PARTIAL) or (folder / MANIFEST).exists() or path.name == MANIFEST:
            stage = folder.name.removesuffix(PARTIAL)
            return InputError(
                f"{path}: {problem}. Make it again: glore run --config=… --workdir={folder.parent} --from={stage}"
            )
    return InputError(f"{path}: {problem}. Make it again: glore run --config=… --workdir=… --from=STAGE")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Opens a file beside `path` for writing and puts it in place once the block has ended well.

    The folder is made where it is missing. Where the block fails, `path` is left as it was.

    Raises:
      InputError: the disk is full or the place not writable.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # gone after the rename; unreachable where the folder is not one
            beside.unlink()


def append(file: io.BufferedRandom | io.BufferedWriter, data: bytes) -> None:
    """Adds to an open file, and hands it on to the system, which keeps it when this process is killed.

    Raises:
      InputError: the disk is full; a part of the data may be there. The file is closed then.
    """
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        file.raw.close()  # and so what is left of the data is not tried again
        raise unwritable(Path(file.name), error) from error


def check_new(folder: Path) -> None:
    """InputError where there is something in the place of a folder to be made; an empty one is fine."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: there is something already; give a new folder, or remove this one")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into, which takes its name once the block has ended well.

    Raises:
      InputError: there is something already, or the place is not writable.
    """
    check_new(folder)
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        yield partial
        partial.replace(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def leftovers(folder: Path) -> list[Path]:
    """Temporary files that a killed process left anywhere under a folder."""
    return sorted(folder.rglob(".*.tmp"))


def appear(paths: Sequence[Path], patience: float = 60) -> None:
    """Waits until files are here that other hosts have written; file systems over a network take their time.

    Raises:
      InputError: one is not seen within so many seconds.
    """
    end = time.monotonic() + patience
    for path in paths:
        while not path.exists():
            if time.monotonic() > end:
                raise damaged(path, f"was written by another process, and is not seen here for {patience:.0f} seconds")
            time.sleep(0.1)


def write_bytes(path: str | Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON value, indented, keys in the order given, with a newline at the end."""
    encoder = json.JSONEncoder(indent=2, ensure_ascii=False)
    with replacing(path) as file:  # chunk by chunk: the whole text takes many times the memory of the value
        file.writelines(chunk.encode() for chunk in itertools.chain(encoder.iterencode(value), "\n"))


def read_json(path: str | Path) -> Any:
    """Reads a JSON file that the package wrote.

    Raises:
      InputError: missing, truncated or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
        raise damaged(path, f"is not whole JSON ({error})") from error


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_table(path: str | Path, rows: Sequence[T], cls: type[T]) -> None:
    """Writes dataclass rows as a Parquet table, one column a field.

    Args:
      path: where to; by custom it ends in `.parquet`.
      rows: instances of `cls`; none at all is fine and keeps the columns.
      cls: a dataclass whose fields are int, float, bool, str, `X | None`, `tuple[X, ...]`,
        `dict[str, X]` or such dataclasses: they become columns, lists, maps and structs.
    """
    schema = _schema(cls)
    columns = []
    for name, hint in _hints(cls).items():
        values = [getattr(row, name) for row in rows]
        if not _is_plain(hint):
            values = [_to_arrow(value, hint) for value in values]
        columns.append(pa.array(values, schema.field(name).type))
    with replacing(path) as file:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, compression="zstd")


def read_table(path: str | Path, cls: type[T]) -> list[T]:
    """Reads the rows that `write_table` wrote.

    Raises:
      InputError: missing, truncated, or with columns other than the fields of `cls`.
    """
    table = _read(Path(path), cls)
    with _no_collection():
        columns = [_from_arrow(table.column(name).combine_chunks(), hint) for name, hint in _hints(cls).items()]
        return [cls(*values) for values in zip(*columns, strict=True)]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Records refer to nothing that refers to them; looking for such cycles would take half the time of a table."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def tally(path: str | Path, cls: type, column: str) -> dict[Any, int]:
    """How many rows of a table have each value of a column, in the order in which the values first come.

    Raises:
      InputError: as `read_table`.
    """
    counts = _read(Path(path), cls, [column]).column(column).value_counts()
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))


def _read(path: Path, cls: type, columns: list[str] | None = None) -> pa.Table:
    """The table of a file, or some columns of it, once it is known to be one of `cls`."""
    try:
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
        found, schema = file.schema_arrow, _schema(cls)
        if not _holds(found, schema):
            problem = f"has columns {_columns(found)}, expected {_columns(schema)}"
            raise damaged(path, f"is not a table of {cls.__name__}: {problem}")
        return file.read(columns)
    except FileNotFoundError as error:
        raise damaged(path, "no such file") from error
    except (pa.ArrowException, OSError) as error:
        problem = str(error).splitlines()[0]
        raise damaged(path, f"is not a whole Parquet table ({problem})") from error


def _holds(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether columns are those that are wanted; one without gaps, as of before it had any, may stand for one with."""
    same = found.names == wanted.names and found.types == wanted.types
    return same and all(mine.nullable <= other.nullable for mine, other in zip(found, wanted, strict=True))


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Field names and resolved types of a dataclass, in order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@functools.cache
def _schema(cls: type) -> pa.Schema:
    return pa.schema([_field(name, hint) for name, hint in _hints(cls).items()])


def _field(name: str, hint: Any) -> pa.Field:
    return pa.field(name, _arrow_type(hint), nullable=_optional(hint) is not None)


def _optional(hint: Any) -> Any:
    """X where the hint is `X | None`, else None."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return None
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    if len(kinds) != 1 or len(kinds) == len(typing.get_args(hint)):
        raise TypeError(f"{hint}: a column can be one type or None, nothing wider")
    return kinds[0]


def _arrow_type(hint: Any) -> pa.DataType:
    """Arrow type of a field's type hint."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    if dataclasses.is_dataclass(hint):
        return pa.struct([_field(name, inner) for name, inner in _hints(typing.cast(type, hint)).items()])
    arguments = typing.get_args(hint)
    if (inner := _optional(hint)) is not None:
        return _arrow_type(inner)
    if typing.get_origin(hint) is tuple and arguments[1:] == (...,):
        return pa.list_(_field("element", arguments[0]))
    if typing.get_origin(hint) is dict and arguments[0] is str:
        return pa.map_(pa.string(), _field("value", arguments[1]))
    raise TypeError(f"{hint}: no column type for it; use int, float, bool, str, tuple[X, ...], dict[str, X]")


def _is_plain(hint: Any) -> bool:
    """Whether `pa.array` takes values as they are: scalars, and tuples of them."""
    return hint in _SCALARS or (typing.get_origin(hint) is tuple and typing.get_args(hint)[0] in _SCALARS)


def _to_arrow(value: Any, hint: Any) -> Any:
    """A value in the form that `pa.array` takes: structs as dicts, maps as lists of pairs."""
    if value is None or _is_plain(hint):
        return value
    if (inner := _optional(hint)) is not None:
        return _to_arrow(value, inner)
    if dataclasses.is_dataclass(hint):
        return {name: _to_arrow(getattr(value, name), h) for name, h in _hints(typing.cast(type, hint)).items()}
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is dict:
        return [(key, _to_arrow(item, arguments[1])) for key, item in value.items()]
    return [_to_arrow(item, arguments[0]) for item in value]


def _from_arrow(array: Any, hint: Any) -> list[Any]:
    """Values of an Arrow array, a whole column at a time: several times faster than row by row."""
    if hint is str:
        return array.to_pylist()
    if hint in _SCALARS:
        return array.to_numpy(zero_copy_only=False).tolist()
    if (inner := _optional(hint)) is not None:
        present = iter(_from_arrow(array.drop_null(), inner))
        return [next(present) if valid else None for valid in array.is_valid().to_pylist()]
    if dataclasses.is_dataclass(hint):
        inner_hints = _hints(typing.cast(type, hint)).values()
        columns = [_from_arrow(child, h) for child, h in zip(array.flatten(), inner_hints, strict=True)]
        return [typing.cast(type, hint)(*values) for values in zip(*columns, strict=True)]
    # Lists and maps keep all their items in one long array; row i owns offsets[i] to offsets[i + 1] of it.
    arguments, offsets = typing.get_args(hint), array.offsets.to_pylist()
    spans = list(itertools.pairwise(offsets))
    if typing.get_origin(hint) is dict:
        keys, items = array.keys.to_pylist(), _from_arrow(array.items, arguments[1])
        return [dict(zip(keys[a:b], items[a:b], strict=True)) for a, b in spans]
    items = _tokens(array.values) if arguments[0] is int else _from_arrow(array.values, arguments[0])
    return [tuple(items[a:b]) for a, b in spans]


def _tokens(array: Any) -> list[int]:
    """Values of a column of integers, with one object for each small one: tokens come again and again."""
    values = array.to_numpy(zero_copy_only=False)
    if not len(values) or values.min() < 0 or values.max() >= _SMALL:
        return values.tolist()
    return _small_integers()[values].tolist()


@functools.cache
def _small_integers() -> np.ndarray:
    return np.arange(_SMALL).astype(object)
