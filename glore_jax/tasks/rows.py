"""Rows of other people's files: JSON lines, a JSON list or Parquet, gzipped or not."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glore_jax.errors import InputError

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"  # how such files begin, whatever they are called


def read(path: str | Path, expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands (file and line, entry or row, counted from 1), and the row by column.

    Args:
      expected: what a row holds, for the errors: `id and values`, say.

    Raises:
      InputError: not to be read, not JSON or Parquet, a row that is no object, or no row at all.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(_GZIP) else content
        if content.startswith(_PARQUET):
            kind, found = "row", enumerate(pq.read_table(pa.BufferReader(content)).to_pylist(), 1)
        else:
            text = content.decode()
            listed = text.lstrip().startswith("[")
            kind, found = ("entry", entries(path, text, expected)) if listed else ("line", lines(path, text, expected))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); give JSON lines, a JSON list of objects or "
            f"Parquet, each row with {expected}"
        ) from error
    number = 0
    for number, row in found:
        yield f"{path}, {kind} {number}", row
    if not number:
        raise InputError(f"{path}: holds no rows; expected rows with {expected}")


def lines(path: str | Path, text: str, expected: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and JSON objects of the lines that are not blank.

    Raises:
      InputError: with file and line: not JSON, not an object.
    """
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at U+2028 within a question
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON ({error}); expected one object a line") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected an object with {expected}, found {type(row).__name__}")
        yield number, row


def entries(path: str | Path, text: str, expected: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers and objects of a JSON list.

    Raises:
      InputError: with file and entry: not JSON, not an object.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); it begins like a list of objects") from error
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, entry {number}: expected an object with {expected}, found {type(row).__name__}")
        yield number, row
