"""GLoRe on SVAMP (docs/tasks.md), from a base model of your own; what is not here is in configs/gsm8k.py.

glore check --config=configs/svamp.py --config.base.path=FOLDER
glore run --config=configs/svamp.py --workdir=runs/svamp --config.base.path=FOLDER

FOLDER is that of a published model, as Hugging Face has it (docs/base_model.md). The data set is downloaded once, and
its checksum checked. On a machine without a network, put the published files into a folder and add
--config.task.manual_dir=FOLDER. The variants `lora` and `pod` are those of configs/gsm8k.py.
"""

from typing import Any

from gsm8k import get_config as gsm8k_config
from gsm8k import trainings
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    config: Any = gsm8k_config(variant)
    config.task.name = "svamp"
    # In the tokens of Mistral 7B a question has at most 80, and a solution 84.
    config.sampling.update({"buckets": (48, 64, 96, 192, 256), "max_new_tokens": 96})
    for settings in trainings(config):
        settings.row_length = 256
    config.refiner.train.row_length = 352
    return config
