"""What a training step of Llama 2 13B takes and sends on a TPU pod, beside MaxText; no TPU is needed.

python benchmarks/pod_bytes.py
python benchmarks/pod_bytes.py --slices v5e:16x16 --tokens 512 --losses language --whole

Needs the extra `tpu-compile`. The step of `glore_jax/training/train_step.py` is planned ahead of time
(`glore_jax/parallel/planning.py`), each program in a process that ends then: weights, moments and gradients split over
all chips (fsdp), a row a device, state in float32, layers in bfloat16, full rematerialisation, splash attention.
MaxText (e591f30) was compiled once with the same settings and compiler (jax 0.10.2, libtpu 0.0.42.1): REFERENCE.

--whole: compile to the end, machine code too, and let the compiled program say its memory, as was done of MaxText. What
it then calls temporaries is more than the buffer that the compiler reserves for them.

Prints JSON for each program, in GB (1e9 bytes): arguments and temporaries of a device; what collectives move in a step,
whole tensors as often as the loops around them turn; and `sent` by the ring convention, in which what is gathered or
scattered counts once and what is reduced on all devices twice. Ten seconds of processor time each, or minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from glore_jax.models import decoder, published, value_head
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.parallel import collectives, placement, planning, programs, topologies
from glore_jax.training import losses
from glore_jax.training import programs as training_programs

GB = 1e9
LOSSES = {"language": losses.language, "value": losses.value}  # the value model's head reads hidden states alone
REFERENCE: dict[str, dict[str, Any]] = {
    "v5e:16x16": {"arguments": 0.613, "temporaries": {512: 2.38, 2048: 4.16}, "sent": 102},
    "v5p:4x4x4": {"arguments": 2.44, "temporaries": {512: 3.13, 2048: 4.94}},
}
SHARDING = {"preset": "fsdp", "sampling": "", "rules": (), "data": 0, "fsdp": 0, "tensor": 0, "sequence": 0}
SETTINGS = {
    "optimizer": "adamw", "learning_rate": 1e-5, "warmup": 0.05, "weight_decay": 0.1, "clip": 1.0,
    "moments": "float32", "micro_batches": 1, "on_bad_step": "stop", "scan": True, "remat": "full",
}  # fmt: skip


def lower(config: DecoderConfig, slice_: topologies.Slice, tokens: int, loss: str) -> jax.stages.Lowered:
    """The step, for shapes that lie on devices."""
    model, key = Decoder(config), jax.random.key(0)
    params = {"decoder": jax.eval_shape(functools.partial(decoder.init, model), key)}
    if loss == "value":
        params["value_head"] = jax.eval_shape(functools.partial(value_head.init, d_model=config.d_model), key)
    settings = ConfigDict(SETTINGS | {"rows": slice_.chips, "row_length": tokens})
    place = placement.make(SHARDING, topologies.devices(slice_))
    return training_programs.step(model, params, LOSSES[loss], settings, 1000, place)[0]()


def measure(topology: str, loss: str, tokens: int, layers: int | None, whole: bool) -> dict[str, Any]:
    slice_, start = topologies.parse(topology), time.process_time()
    config, _ = published.describe("Llama-2-13b-hf")
    config = dataclasses.replace(config, dtype="bfloat16", num_layers=layers or config.num_layers)
    memory, text = (programs.made if whole else planning.plan)(lower(config, slice_, tokens, loss))
    moved = collectives.read(text)
    reference = REFERENCE.get(topology, {})
    return {
        "slice": topology,
        "loss": loss,
        "tokens": tokens,
        "arguments": round(memory.arguments / GB, 3),
        "temporaries": round(memory.temporaries / GB, 3),
        "peak": round(memory.peak / GB, 3),
        "moved": {kind: round(size / GB, 2) for kind, size in moved.bytes.items()},
        "sent": round(sum(size * (1 + (kind == "all-reduce")) for kind, size in moved.bytes.items()) / GB, 2),
        "maxtext": reference | {"temporaries": reference.get("temporaries", {}).get(tokens)},
        "whole": whole,
        "seconds": round(time.process_time() - start),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", nargs="+", default=list(REFERENCE))
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--layers", type=int, help="of the 40, for a quick look")
    parser.add_argument("--whole", action="store_true", help="machine code too")
    parser.add_argument("--one", action="store_true", help="in this process, the first of the programs")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # a TPU that is there need not be taken
    jax.config.update("jax_enable_compilation_cache", False)  # it would keep what it cannot read without a TPU
    more = ["--whole"] * options.whole + (["--layers", str(options.layers)] if options.layers else [])
    for topology, loss, tokens in itertools.product(options.slices, options.losses, options.tokens):
        if options.one:
            print(json.dumps(measure(topology, loss, tokens, options.layers, options.whole)), flush=True)
            os._exit(0)  # the compiler works on
        words = ["--one", "--slices", topology, "--losses", loss, "--tokens", str(tokens), *more]
        subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
