"""Published data sets: their files, downloaded and checked or from a folder, through TFDS to rows.

TFDS prepares a data set once, as ArrayRecord files that are read without TensorFlow. Files of a folder of the user's
are prepared in a temporary place instead: what was prepared before says nothing about what the folder holds now.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glore_jax.errors import InputError

Row = dict[str, str]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What makes a published data set.

    Attributes:
      name: as `task.name` has it.
      urls: of each file, by the name of the part of the data set that it holds.
      columns: of a row.
      rows: reads a file: the line or entry of each row, counted from 1, and the row; raises InputError with file and
        line.
    """

    name: str
    urls: Mapping[str, str]
    columns: tuple[str, ...]
    rows: Callable[[Path], Iterator[tuple[int, Row]]]

    def files(self, folder: str | Path) -> dict[str, Path]:
        """Where each part lies in a folder: under the name that it is published with."""
        return {part: Path(folder) / url.rpartition("/")[2] for part, url in self.urls.items()}


def read(data_set: DataSet, manual_dir: str, data_dir: str) -> dict[str, list[tuple[int, Row]]]:
    """The rows of each part, in the order of its file, with their lines or entries.

    Args:
      manual_dir: a folder with the published files, which is read as it is; "" to download them.
      data_dir: where TFDS keeps what was downloaded; "" is `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.

    Raises:
      InputError: TFDS is not installed, a file is missing, damaged or cannot be downloaded, or a row is bad.
    """
    try:
        from glore_jax.tasks import tfds_builder  # here, as it loads TFDS, which is large and may not be installed
    except ModuleNotFoundError as error:
        raise InputError(
            f"task.name={data_set.name!r} needs TFDS ({error}); install it with: pip install 'glore_jax[datasets]' "
            "(in a checkout: .venv/bin/python -m pip install -e '.[datasets]')"
        ) from error
    files = data_set.files(manual_dir) if manual_dir else {}
    if missing := [str(path) for path in files.values() if not path.is_file()]:
        places = ", ".join(data_set.urls.values())
        raise InputError(f"task.manual_dir lacks {', '.join(missing)}; put there what is published at {places}")
    with tempfile.TemporaryDirectory() if manual_dir else contextlib.nullcontext(data_dir or None) as place:
        try:
            return tfds_builder.read(data_set, files, place and os.path.expanduser(place))
        except tfds_builder.FAILURES as error:
            raise InputError(
                f"{data_set.name}: its files cannot be had ({error}); try again, or download "
                f"{', '.join(data_set.urls.values())} yourself and name their folder with --config.task.manual_dir"
            ) from error


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """A column that must hold text.

    Raises:
      InputError: with `where`: missing, empty or no text.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        columns = ", ".join(map(repr, row)) or "none"
        raise InputError(f"{where}: expected text in the column {column!r}, found {value!r}; the columns are {columns}")
    return value.strip()
