"""What sampling from Llama 2 7B and 13B takes on TPUs, from the TPU compiler alone; no TPU is needed.

python benchmarks/decode_tpu_compile.py
python benchmarks/decode_tpu_compile.py --models=gsm8k_llama2_7b --topologies=v5e-8 --widths 8

Needs the extra `tpu-compile`. The four programs of the engine (`glore_jax/sampling/layouts.py`) are planned ahead of
time (`glore_jax/parallel/planning.py`) for a described machine, with weights and cache in bfloat16, all layers, and a
bucket of 512 prompt and 512 new tokens:

v5e-8    8 chips (2x4) of 16 GiB
v5e-16   16 chips (4x4)
v5p-8    4 chips (2x2x1) of 95 GiB: the 8 counts cores, of which a chip has two that compile as one device

Weights are split by the preset `tensor` of `parallel.rules`, the cache over slots (its prefixes over groups of slots)
and key heads. Slots are tried downward in powers of two, from the last number that has room with the weights alone. A
number fits if the compiler finds room for all programs, and each has it beside what stays on the device meanwhile: the
weights, the slots, the last prefilled sources. Prints a table, GiB on each device, and then JSON with the reason
against twice as many.
Minutes of processor time for each model, machine and width, each in a process that ends when it has its plans; until
then the compiler works on at machine code that nobody waits for.

--widths: slots that continue one source and keep its prefix once: 1, as drafts do, or 8, as rollouts of one draft.
--weights, --cache: in how many bits weights, and keys and values, are kept: `same`, bfloat16, or `int8`.
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
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.models.execution import Execution
from glore_jax.parallel import placement, planning, topologies
from glore_jax.parallel import programs as compiling
from glore_jax.parallel.programs import Memory, TooLarge
from glore_jax.parallel.topologies import CHIPS, GIB
from glore_jax.progress import say, size
from glore_jax.sampling import decode, layouts, programs

BUCKET, NEW, SOURCES, CHUNK = 512, 512, 8, 16
BITS = "same", "int8"
WIDTHS = 1, 8
SPLIT = {"preset": "tensor", "sampling": "", "rules": (), "fsdp": 1, "sequence": 1}
MODELS = {
    "gsm8k_llama2_7b": DecoderConfig(32_000, 4096, 32, 32, 32, 128, 11_008, dtype="bfloat16"),
    "gsm8k_llama2_13b": DecoderConfig(32_000, 5120, 40, 40, 40, 128, 13_824, dtype="bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """A number of connected chips.

    Attributes:
      topology: as libtpu names it.
      mesh: devices on the axes `data` and `tensor`.
      memory: bytes on each device that a program may use.
    """

    topology: str
    mesh: tuple[int, int]
    memory: int


# More devices on `tensor` leave more room beside the weights, but 40 heads split evenly over 8 at most.
MACHINES = {
    "v5e-8": Machine("v5e:2x4", (1, 8), CHIPS["v5e"].memory),
    "v5e-16": Machine("v5e:4x4", (2, 8), CHIPS["v5e"].memory),
    "v5p-8": Machine("v5p:2x2x1", (1, 4), CHIPS["v5p"].memory),
}


class Sampler:
    """The programs that sample from one model on one machine, in any number of slots.

    `prefix_columns` and `ring` are as in `decode.Shapes`.
    """

    def __init__(
        self,
        config: DecoderConfig,
        machine: Machine,
        prefix_columns: int = BUCKET,
        ring: int = NEW,
        weights: str = "same",
        cache: str = "same",
    ):
        self.machine, self.cache, self.prefix_columns, self.ring = machine, cache, prefix_columns, ring
        settings = SPLIT | dict(zip(("data", "tensor"), machine.mesh, strict=True))
        self.place = placement.make(settings, topologies.devices(topologies.parse(machine.topology)))
        self.model = Decoder(config, Execution(self.place))
        read = nn.meta.unbox(decoder.shapes(Decoder(config)))
        kept = SimpleNamespace(dtype=config.dtype, weights=weights)
        self.params = programs.params(self.model, read, kept, self.place)

    def shapes(self, slots: int, width: int) -> decode.Shapes:
        return decode.Shapes(slots, width, SOURCES, self.prefix_columns, self.ring, CHUNK, 2, 0, self.cache)

    @functools.cached_property
    def prefilled(self) -> Any:
        return programs.prefilled(self.model, self.shapes(1, 1), self.place)

    @functools.cached_property
    def prefilling(self) -> Memory:
        """Of `prefill`, the same for any number of slots."""
        return planning.plan(programs.prefill(self.model, self.shapes(1, 1), self.params, self.place))[0]

    def bytes(self, shapes: decode.Shapes) -> int:
        """Of the slots, on each device."""
        return compiling.bytes_of(programs.slots(self.model, shapes, self.place))

    def memory(self, shapes: decode.Shapes) -> dict[str, dict[str, int]]:
        """What each program takes on each device.

        Raises:
          TooLarge: one of them has no room.
        """
        chunk, text = planning.plan(programs.decode_chunk(self.model, shapes, self.params, self.place))
        at = planning.formats(text, programs.slots_at(self.model, shapes, self.place))
        (bind, insert), slots = layouts.keeping(at), compiling.shapes(programs.bare_slots(self.model, shapes), at)
        groups = [
            jax.ShapeDtypeStruct((shapes.slots // shapes.width,), kind, sharding=self.place.at("batch"))
            for kind in (jnp.int32, bool)
        ]
        kinds = dict.fromkeys(("prefix", "token", "limit", "top_k"), jnp.int32)
        kinds |= {"temperature": jnp.float32, "top_p": jnp.float32, "fill": bool}
        request = {name: jax.ShapeDtypeStruct((shapes.slots,), kind) for name, kind in kinds.items()}
        request["name"] = jax.ShapeDtypeStruct((shapes.slots, 2), jnp.uint32)
        bind, _ = planning.plan(bind.lower(slots, self.prefilled, *groups))
        insert, _ = planning.plan(insert.lower(slots, compiling.shapes(request, self.place.at("batch"))))
        weights, prefilled = compiling.bytes_of(self.params), compiling.bytes_of(self.prefilled)
        found = {
            "decode_chunk": taken(chunk, prefilled),
            "bind": taken(bind, weights),
            "insert": taken(insert, weights + prefilled),
            "prefill": taken(self.prefilling, self.bytes(shapes) + prefilled),
        }
        for name, parts in found.items():
            if parts["peak"] + parts["beside"] > self.machine.memory:
                raise TooLarge(f"{name} takes {size(parts['peak'])} beside {size(parts['beside'])}")
        return found


def taken(found: Memory, beside: int) -> dict[str, int]:
    """Bytes of a program on each device, and of what stays there beside its arguments."""
    return {"arguments": found.arguments, "temporaries": found.temporaries, "peak": found.peak, "beside": beside}


def most_slots(sampler: Sampler, width: int) -> dict[str, Any]:
    """The largest number of slots that fits, the memory of its programs, and why twice as many do not fit."""
    start, least = time.process_time(), sampler.machine.mesh[0] * width  # a group lies on one device of that axis
    weights = compiling.bytes_of(sampler.params)

    def alone(count: int) -> int:
        return weights + sampler.bytes(sampler.shapes(count, width))

    count = least
    while alone(2 * count) <= sampler.machine.memory:
        count *= 2
    refusal = f"weights and slots alone take {size(alone(2 * count))}"
    while count >= least:
        try:
            found = sampler.memory(sampler.shapes(count, width))
        except TooLarge as error:
            refusal = str(error)
            count //= 2
        else:
            break
    else:
        count, found = 0, {}
    return {"slots": count, "programs": found, "refusal": refusal, "seconds": round(time.process_time() - start)}


def table(found: Sequence[dict[str, Any]]) -> str:
    """A row for each program, in GiB on each device, as Markdown."""
    sizes = "arguments", "temporaries", "peak", "beside", "share"
    names = "model", "machine", "weights", "cache", "width", "slots"
    rows = [(*names, "program", *sizes), ("---",) * (len(names) + 1) + ("---:",) * len(sizes)]
    for case in found:
        for program, parts in case["programs"].items():
            share = (parts["peak"] + parts["beside"]) / MACHINES[case["machine"]].memory
            about = (str(case[name]) for name in names)
            rows.append((*about, program, *(f"{value / GIB:.2f}" for value in parts.values()), f"{share:.0%}"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--topologies", nargs="+", choices=MACHINES, default=list(MACHINES))
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    parser.add_argument("--weights", nargs="+", choices=BITS, default=["same"])
    parser.add_argument("--cache", nargs="+", choices=BITS, default=["same"])
    parser.add_argument("--one", action="store_true", help="in this process, the first of the cases, as JSON")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # a TPU that is there need not be taken
    jax.config.update("jax_enable_compilation_cache", False)  # it would keep what it cannot read without a TPU
    found = []
    kinds = options.models, options.topologies, options.weights, options.cache, options.widths
    for model, machine, weights, cache, width in itertools.product(*kinds):
        if options.one:
            sampler = Sampler(MODELS[model], MACHINES[machine], weights=weights, cache=cache)
            about = {"model": model, "machine": machine, "mesh": MACHINES[machine].mesh, "weights": weights}
            print(json.dumps(about | {"cache": cache, "width": width} | most_slots(sampler, width)), flush=True)
            os._exit(0)  # the compiler works on
        words = ["--one", "--models", model, "--topologies", machine, "--widths", str(width)]
        words = [sys.executable, __file__, *words, "--weights", weights, "--cache", cache]
        found.append(json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout))
        slots, seconds = found[-1]["slots"], found[-1]["seconds"]
        say(f"{model} on {machine}, weights {weights}, cache {cache}, groups of {width}: {slots} slots, {seconds} s")
    print(table(found))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
