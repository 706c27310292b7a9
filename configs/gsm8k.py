"""GLoRe on GSM8K (docs/tasks.md), from a base model of your own. The other gsm8k_*.py name what differs by model.

glore check --config=configs/gsm8k.py --config.base.path=FOLDER
glore run --config=configs/gsm8k.py --workdir=runs/gsm8k --config.base.path=FOLDER

FOLDER is that of a published model, as Hugging Face has it (docs/base_model.md); the base model that the package ships
knows the embedded task's words only. The data set is downloaded once, and its checksum checked. On a machine without a
network, put the published files into a folder and add --config.task.manual_dir=FOLDER.

variant   what it changes
(none)    all parameters learn in every training, and a model lies whole on every device
lora      a LoRA adapter on all linear layers learns, at ten times the learning rate (docs/base_model.md)
pod       models with eight key heads or a multiple are split over the 8 to 64 chips of a TPU slice (docs/sharding.md)

Parameters, gradients and the optimizer's two moments are float32, 16 bytes a parameter: `glore check` adds up what a
model takes. The counts marked so are the paper's. Learning rates, epochs and batch sizes
are common ones for models of this size, tuned on nothing: choose them on dev.
"""

from typing import Any

from jsonl import get_config as jsonl_config
from ml_collections import ConfigDict

from glore_jax.errors import InputError


def trainings(config: Any) -> list[Any]:
    """The settings of every training."""
    return [config[name].train for name in ("sft", "expert_iteration", "orm", "sorm", "refiner")]


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "lora", "pod"):
        raise InputError(f"configurations of GSM8K and SVAMP have no variant {variant!r}; there are :lora and :pod")
    config: Any = jsonl_config()
    config.devices = 0
    config.task = ConfigDict(
        {
            "name": "gsm8k",
            "manual_dir": "",  # a folder with the published files; "" downloads them
            "data_dir": "",  # where TFDS keeps what it downloaded; "" is TFDS_DATA_DIR or ~/tensorflow_datasets
            "train": 0,  # problems of each split that are used, the first ones; 0: all
            "dev": 0,
            "test": 0,
        }
    )
    # In the tokens of Mistral 7B, whose digits are tokens of their own, a question has at most 234 and a worked
    # solution 466, 99 of 100 no more than 139 and 300.
    config.sampling.update({"buckets": (96, 128, 192, 256, 384, 576), "max_new_tokens": 320})
    config.sampling.update({"slots": 0, "sources": 8})  # keys and values of a large model take room
    config.sampling.dtype = "bfloat16"  # as its weights are published: half the memory, which a step of decoding reads
    config.expert_iteration.update({"rounds": 4, "samples": 96})  # samples: the paper's
    config.traces.per_problem = 8
    for settings in trainings(config):
        settings.update({"steps": 0, "epochs": 2.0, "rows": 16, "row_length": 576})
        settings.update({"optimizer": "adamw", "learning_rate": 1e-5})
        settings.update({"scan": True, "remat": "full"})  # deep models
    config.value.surprise = False  # deep models see it by themselves (glore_jax/models/value_head.py)
    config.refiner.train.row_length = 896
    config.refiner.prefix_lm = False  # as published models read
    if variant == "lora":
        for settings in trainings(config):
            settings.lora.update({"rank": 16, "alpha": 32.0, "layers": ("wq", "wk", "wv", "wo", "gate", "up", "down")})
            settings.learning_rate = 1e-4
    if variant == "pod":  # eight chips share key heads; the vocabulary, with the marks, has an odd number of words
        config.sharding.update({"preset": "fsdp+tensor", "tensor": 8, "sampling": "tensor", "rules": ("vocab=none",)})
    return config
