"""Step labels for solutions that anybody wrote, from rollouts of a model of yours (docs/labelling.md).

glore label --config=configs/label.py --model=FOLDER --input=solutions.jsonl --output=labels
glore label-report labels

machine   2 cores of an EPYC
wall time 1 min 16 s for 200 drafts of the default run's student (345,000 parameters)
"""

from typing import Any

from arithmetic import get_config as arithmetic_config
from ml_collections import ConfigDict

from glore_jax.errors import InputError


def get_config(variant: str = "") -> ConfigDict:
    if variant:
        raise InputError(f"configs/label.py has no variant {variant!r}")
    like: Any = arithmetic_config()
    config: Any = ConfigDict(
        {
            "recipe": "label",
            "seed": 0,
            "devices": 0,  # CPU devices to split batches over; 0 leaves it to JAX
            "sharding": like.sharding,
            "task": {
                "solutions": (),  # files; --input sets it
                "answers": "number",  # "latex": compared as formulas, by math-verify (docs/tasks.md)
            },
            "base": {
                "path": "",  # folder of the model: Hugging Face's, or of a stage of a run; --model sets it
                "adapter": "",  # folder of a LoRA adapter for it, as PEFT saves them; "" for none
                "chat": False,  # True: questions are put as the folder's chat template has it
            },
            "sampling": like.sampling,
            "labels": {
                "rollouts": 8,
                "boundary_rollouts": 0,
                "search": "backward",  # "all": every prefix, for the same labels; see glore_jax.method.verifying
                "consistency": "each",
                "propagation": True,
                "balance": True,
            },
        }
    )
    config.sampling.update({"slots": 64, "buckets": (128, 192, 256, 384, 512, 768), "max_new_tokens": 320})
    return config
