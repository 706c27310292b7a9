"""The TFDS builder of all published data sets. Importing this loads TFDS; `published.py` does so when it must."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from glore_jax.tasks.published import DataSet, Row

FAILURES = (OSError, tfds.download.DownloadError, NonMatchingChecksumError)
_AT = "at"  # the column with the line or entry: TFDS shuffles


class GloreTasks(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Rows of text, one TFDS split a file. `checksums.tsv` in this folder has the sizes and digests of the files."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("gsm8k", "svamp")]

    def __init__(self, data_set: DataSet, files: Mapping[str, Path], data_dir: str | None):
        """Args: see `read`."""
        self.data_set, self.files = data_set, files
        super().__init__(config=data_set.name, data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        columns: dict[str, Any] = {name: tfds.features.Text() for name in self.data_set.columns}
        at = tfds.features.Text()
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({_AT: at, **columns}))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Row]]]:
        files = self.files or dl_manager.download(dict(self.data_set.urls))
        return {part: self._generate_examples(Path(path)) for part, path in files.items()}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, Row]]:
        for at, row in self.data_set.rows(path):
            yield at, {_AT: str(at), **row}


def read(data_set: DataSet, files: Mapping[str, Path], data_dir: str | None) -> dict[str, list[tuple[int, Row]]]:
    """Prepares a data set where it is not yet, and reads it.

    Args:
      files: of each part; none to download them.
      data_dir: where TFDS keeps what it prepares; None is TFDS's own default.
    """
    tfds.disable_progress_bar()
    builder = GloreTasks(data_set, files, data_dir)
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # it says where the prepared files lie, be the place temporary or not
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(force_checksums_validation=True))
    source: Any = builder.as_data_source()  # of every part, a sequence of rows
    return {part: sorted(map(_decoded, source[part]), key=lambda item: item[0]) for part in data_set.urls}


def _decoded(row: Mapping[str, bytes]) -> tuple[int, Row]:
    text = {name: value.decode() for name, value in row.items()}
    return int(text.pop(_AT)), text
