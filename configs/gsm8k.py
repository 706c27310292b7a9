"""GLoRe on GSM8K (docs/tasks.md), from a base model of your own.

glore run --config=configs/gsm8k.py --workdir=runs/gsm8k --config.base.path=FOLDER

variant   what it is for
(none)    a run in earnest; set the steps of each training to what your model takes
smoke     the same with few training steps: does everything run?

The data set is downloaded once, and its checksum checked. On a machine without a network, put the published files into
a folder and add --config.task.manual_dir=FOLDER. The base model that the package ships knows the embedded task's words
only and learns next to nothing here.
"""

from typing import Any

from jsonl import get_config as jsonl_config
from ml_collections import ConfigDict

from glore_jax.errors import InputError


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise InputError(f"configs/gsm8k.py has no variant {variant!r}; there is :smoke")
    config: Any = jsonl_config(variant)
    config.task = ConfigDict(
        {
            "name": "gsm8k",
            "manual_dir": "",  # a folder with the published files; "" downloads them
            "data_dir": "",  # where TFDS keeps what it downloaded; "" is TFDS_DATA_DIR or ~/tensorflow_datasets
        }
    )
    return config
