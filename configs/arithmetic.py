"""The whole paper on the embedded task: grade-school word problems and a student of 345,000 parameters.

glore run --config=configs/arithmetic.py --workdir=runs/arithmetic

variant   what it is for                         machine             wall time
(none)    every claim once, 400 test problems    2 cores of an EPYC  16 minutes
full      every claim, 1,000 test problems       2 cores of an EPYC  31 minutes a seed, beside other work
smoke     does everything run?                   2 cores of an EPYC  2 to 5 minutes

What to expect: a student of about 54 % and a system of about 73 %; docs/results/ has the figures of each.
"""

from typing import Any

from ml_collections import ConfigDict

from glore_jax.errors import InputError


def training(**changes) -> ConfigDict:
    """Settings of one training; see `glore_jax.training.loop` and `.optimizer`."""
    settings = ConfigDict(
        {
            "steps": 0,  # 0: as many as `epochs` takes
            "epochs": 1.0,
            "rows": 24,  # rows of a batch
            "row_length": 400,  # tokens of a row; examples are packed into rows
            "micro_batches": 1,  # parts that a batch is computed in, one after the other: less memory, the same step
            "optimizer": "muon",
            "learning_rate": 0.01,
            "warmup": 0.05,  # share of the steps
            "weight_decay": 0.0,
            "clip": 1.0,
            "moments": "float32",  # of the optimizer; bfloat16 takes half the memory
            "checkpoint_seconds": 60,  # between two checkpoints of a training under way
            "checkpoints": 2,  # of the newest that stay, should the last one be damaged
            "keep": "last",  # of the states: "best" is the one with the lowest loss on dev_share
            "dev_share": 0.0,  # of a training's problems, that are measured and not learnt from
            "on_bad_step": "stop",  # a loss that is no number or has exploded: stop, or skip the update and count it
            "scan": False,  # True: one program for all layers, which compiles deep models in the time of one layer
            "remat": "none",  # kept of a layer for its gradients: all; "products" of matrices; "full": what went in
            # rank 0: all parameters learn; else a LoRA adapter on the layers (glore_jax.models.lora.LINEAR) learns
            "lora": {"rank": 0, "alpha": 16.0, "layers": ("wq", "wk", "wv", "wo")},
        }
    )
    settings.update(changes)
    return settings


def sharding() -> ConfigDict:
    """How models and batches are split over devices, which changes no result: see docs/sharding.md."""
    return ConfigDict(
        {
            "preset": "replicated",  # what of a model is split: replicated (nothing), fsdp, tensor or fsdp+tensor
            "sampling": "",  # another preset for sampling and for reading values, e.g. replicated; "": the same
            "rules": (),  # read before those of the preset, e.g. ("kv_heads=none",)
            "data": 0,  # devices on each axis; 0: those that the others leave, or one
            "fsdp": 0,
            "tensor": 0,
            "sequence": 0,
        }
    )


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "full", "smoke"):
        raise InputError(f"configs/arithmetic.py has no variant {variant!r}; there are :smoke and :full")
    config: Any = ConfigDict(
        {
            "recipe": "glore",
            "seed": 0,
            "devices": 2,  # CPU devices to split batches over; 0 leaves it to JAX
            "sharding": sharding(),
            "task": {
                "name": "arithmetic",
                "seed": 0,
                "train": 1100,  # problems
                "dev": 250,
                "test": 400,
                "step_weights": (0.03, 0.03, 0.05, 0.2, 0.75, 2.3, 1.1),  # relative frequency of 2, 3, ... 8 steps
            },
            "base": {
                "path": "",  # folder of a base model, own or Hugging Face's; "" is the one shipped with the package
                "adapter": "",  # folder of a LoRA adapter for it, as PEFT saves them; "" for none
                "marks": "tokens",  # [BAD] and its like are new tokens; "text": spelled out in those that are there
                "chat": False,  # True: questions are put as the folder's chat template has it
            },
            "train_dtype": "bfloat16",  # activations; parameters and optimizer are float32
            "sampling": {
                "dtype": "float32",  # of the computation; in float32 no token depends on what is sampled beside it
                "weights": "same",  # in `dtype`, or in "int8"; docs/performance.md has what either costs
                "cache": "same",  # keys and values: in `dtype`, or in "int8"
                "slots": 128,  # sequences that decode together; 0: as many as there is memory for
                "sources": 32,  # prompts that are prefilled together
                "chunk": 16,  # decoding steps between two looks of the host
                "buckets": (80, 112, 160, 224, 304, 432),  # prompt lengths that are compiled for
                "max_new_tokens": 288,
                "temperature": 1.0,  # of samples and rollouts (the paper's)
            },
            "sft": {"train": training(epochs=1.0, learning_rate=0.001)},
            "expert_iteration": {
                "rounds": 1,  # at most; stops earlier when the dev accuracy stops rising
                "samples": 2,  # K a problem and round (paper: 96)
                "train": training(epochs=1.0, learning_rate=0.001),
            },
            "traces": {"per_problem": 3},
            "labels": {
                "problems": 560,  # the first ones of train; 0: all
                "solved_only": True,  # of these those that some trace gets right
                "wrong_per_problem": 1,  # traces whose prefixes are rolled out
                "right_per_problem": 1,
                "rollouts": 8,  # K a prefix (the paper's)
                "boundary_rollouts": 0,  # more of the first prefix of a wrong trace that none of these mends
                # Every prefix; "backward": from the last one, no further than tells the labels; "first": labels alone.
                "search": "all",
                "consistency": "each",  # each, strict or off; see glore_jax.method.labels
                "propagation": True,
                "balance": True,
            },
            "value": {
                "init": "student",
                "surprise": True,  # the head also reads how unlikely the model finds the solution so far
                "language": 0.02,  # weight of a token's surprise in the loss, beside 1 for a label
            },
            # At twice the rate the ORM orders the answers to a question worse, with twice the traces too.
            "orm": {"train": training(epochs=2.0, rows=8, learning_rate=0.0015)},
            "sorm": {
                # Whether any verifying trace is right (the paper's); or the "share" of them, or the "ratio" of shares
                # from step to step; see glore_jax.method.soft_labels.
                "target": "any",
                "train": training(epochs=4.0, rows=8, learning_rate=0.0015),
            },
            "refiner": {
                "init": "base",
                "prefix_lm": True,  # the source attends in both directions; False: causally
                "global_pairs": 2,  # targets for each wrong trace
                "local_pairs": 4,  # pairs for each labelled wrong trace
                # Around step 280 a refiner begins to work products out by parts; with 240 it mends 29 %, with 400 47 %.
                "train": training(steps=340, row_length=672, rows=4, learning_rate=0.005),
            },
            "evaluation": {
                "samples": 8,  # student samples a test problem, for pass@k and best of three
                "ranker": "orm",  # by what candidates are compared; see glore_jax.rankers
            },
        }
    )
    if variant == "smoke":
        config.task.update({"train": 112, "dev": 32, "test": 32})
        # Most of its time is compilation: of fewer lengths, and of one layer for all in training.
        config.sampling.update({"slots": 32, "buckets": (160, 432)})
        for settings in (config.sft, config.expert_iteration, config.orm, config.sorm, config.refiner):
            settings.train.scan = True
        config.evaluation.samples = 4  # one more than best of three chooses from
        config.sft.train.update({"steps": 4, "rows": 8})
        config.expert_iteration.train.update({"steps": 4, "rows": 8})
        config.orm.train.update({"steps": 6, "rows": 4})
        config.sorm.train.update({"steps": 6, "rows": 4})
        config.refiner.train.steps = 6
        config.labels.update({"problems": 64, "rollouts": 2})
    if variant == "full":
        config.task.update({"train": 1500, "dev": 400, "test": 1000})
        config.labels.problems = 800
        config.orm.train.epochs = 3.0
        config.refiner.train.steps = 450
        config.evaluation.samples = 16
    return config
