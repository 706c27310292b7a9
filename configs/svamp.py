"""GLoRe on SVAMP (docs/tasks.md), from a base model of your own.

glore run --config=configs/svamp.py --workdir=runs/svamp --config.base.path=FOLDER

The data set is downloaded once, and its checksum checked. On a machine without a network, put the published files into
a folder and add --config.task.manual_dir=FOLDER. The base model that the package ships knows the embedded task's words
only: name one of your own. Set the steps of each training to what it takes.
"""

from typing import Any

from jsonl import get_config as jsonl_config
from ml_collections import ConfigDict

from glore_jax.errors import InputError


def get_config(variant: str = "") -> ConfigDict:
    if variant:
        raise InputError(f"configs/svamp.py has no variants; leave out {':' + variant!r}")
    config: Any = jsonl_config()
    config.task = ConfigDict(
        {
            "name": "svamp",
            "manual_dir": "",  # a folder with the published files; "" downloads them
            "data_dir": "",  # where TFDS keeps what it downloaded; "" is TFDS_DATA_DIR or ~/tensorflow_datasets
        }
    )
    return config
