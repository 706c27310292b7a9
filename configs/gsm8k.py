"""GLoRe on GSM8K (docs/tasks.md), from a base model of your own.

glore run --config=configs/gsm8k.py --workdir=runs/gsm8k --config.base.path=FOLDER

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
        raise InputError(f"configs/gsm8k.py has no variants; leave out {':' + variant!r}")
    config: Any = jsonl_config()
    config.task = ConfigDict(
        {
            "name": "gsm8k",
            "manual_dir": "",  # a folder with the published files; "" downloads them
            "data_dir": "",  # where TFDS keeps what it downloaded; "" is TFDS_DATA_DIR or ~/tensorflow_datasets
        }
    )
    # In the tokens of Mistral 7B, whose digits are tokens of their own, a question has at most 234 and a worked
    # solution 466, 99 of 100 no more than 139 and 300.
    config.sampling.update({"buckets": (96, 128, 192, 256, 384, 576), "max_new_tokens": 320})
    for name in ("sft", "expert_iteration", "orm", "sorm"):
        config[name].train.row_length = 576
    config.refiner.train.row_length = 896
    return config
