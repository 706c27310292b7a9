"""GLoRe on your own problems, from the base model that the package ships or another one.

glore run --config=configs/jsonl.py --workdir=runs/mine --config.task.train=problems.jsonl

One problem a line: {"question": "...", "answer": "12", "solution": "3*4 = <<3*4=12>>12\\n#### 12"}.
`answer` holds a number, or LaTeX with `--config.task.answers=latex`. `solution` may be left out; where it is
given it has one step a line and ends with `#### answer`. Where `task.dev` or `task.test` is "", a tenth of the
problems each is cut off.

variant   what it is for
(none)    a run in earnest; set the steps of each training to what your data takes
smoke     does everything run?

The shipped base model knows the embedded task's words. Problems in other words need worked solutions
to learn from, or a base model of their own (`--config.base.path=FOLDER`). Without an oracle the rows
of the report that need one are left out.
"""

from typing import Any

from arithmetic import get_config as arithmetic_config
from ml_collections import ConfigDict

from glore_jax.errors import InputError


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise InputError(f"configs/jsonl.py has no variant {variant!r}; there is :smoke")
    config: Any = arithmetic_config(variant)
    config.task = ConfigDict(
        {
            "name": "jsonl",
            "train": "",  # paths of JSONL files; train must be given
            "dev": "",
            "test": "",
            "answers": "number",  # "latex": compared as formulas, by math-verify (docs/tasks.md)
        }
    )
    # Free text takes more tokens than the embedded task's short sentences: room for questions of about 300.
    config.sampling.update({"buckets": (96, 128, 192, 256, 384, 512), "max_new_tokens": 192})
    config.sft.train.update({"row_length": 512, "rows": 16})
    config.expert_iteration.train.update({"row_length": 512, "rows": 16})
    config.orm.train.update({"row_length": 512, "rows": 16})
    config.sorm.train.update({"row_length": 512, "rows": 16})
    config.labels.problems = 0
    config.refiner.train.update({"row_length": 704, "rows": 10})
    return config
