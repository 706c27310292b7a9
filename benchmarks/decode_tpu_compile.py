"""What sampling from Llama 2 7B and 13B takes on TPUs, from the TPU compiler alone; no TPU is needed.

python benchmarks/decode_tpu_compile.py
python benchmarks/decode_tpu_compile.py --models=gsm8k_llama2_7b --topologies=v5e-8 --layouts row-major compiler

Needs the extra `tpu-compile`. The four programs of `glore_jax/sampling/decode.py` are compiled ahead of time for a
described machine, with weights and cache in bfloat16, all layers, and a bucket of 512 prompt and 512 new tokens:

v5e-8    8 chips (2x4) of 16 GiB
v5e-16   16 chips (4x4)
v5p-8    4 chips (2x2x1) of 95 GiB: the 8 counts cores, of which a chip has two that compile as one device

Weights are split by the preset `tensor` of `parallel.rules`, the cache over slots (its prefixes over groups of slots)
and key heads. Slots are tried downward in powers of two, from the last number that has room with the weights alone. A
number fits if all programs compile, and each has room beside what stays on the device meanwhile: the weights, the
slots, the last prefilled sources. Prints a table, GiB on each device, and then JSON with the reason against twice as
many.
One to ten minutes for each model, machine and width, on two cores.

--widths: slots that continue one source and keep its prefix once: 1, as drafts do, or 8, as rollouts of one draft.
--weights, --cache: in how many bits weights, and keys and values, are kept: `same`, bfloat16, or `int8`.
--layouts: how the cache lies in memory between two chunks: `row-major`, as JAX does where nobody says otherwise, or
`compiler`, as decoding would have it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import itertools
import json
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.models import quantised
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.models.visibility import Visibility
from glore_jax.parallel import programs as compiled_programs
from glore_jax.parallel import rules, topologies
from glore_jax.parallel.placement import Placement
from glore_jax.parallel.programs import TooLarge
from glore_jax.parallel.topologies import CHIPS, GIB
from glore_jax.progress import say, size
from glore_jax.sampling import decode, kv_cache, precision

BUCKET, NEW, SOURCES, CHUNK = 512, 512, 8, 16
LAYOUTS = "row-major", "compiler"
BITS = "same", "int8"
WIDTHS = 1, 8
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


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of arrays, and what is known of these before there are any.

    Attributes:
      args: shapes.
      formats: where each of the arguments lies, and for some in which layout; as `args`.
      results: the same of what it returns.
      donated: arguments whose memory the results take.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    formats: tuple[Any, ...]
    results: Any
    donated: tuple[int, ...] = ()

    def compile(self) -> Any:
        """Raises: TooLarge."""
        donated: Any = self.donated
        jitted = jax.jit(self.function, in_shardings=self.formats, out_shardings=self.results, donate_argnums=donated)
        return compiled_programs.compile(jitted.lower(*self.args))


def mesh_of(machine: Machine) -> Mesh:
    """Devices in the order of libtpu, in which neighbours come together; how near they are changes no byte."""
    devices = topologies.devices(topologies.parse(machine.topology))
    return Mesh(np.array(devices).reshape(machine.mesh), ("data", "tensor"))


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
        self.model, self.machine, self.mesh = Decoder(config), machine, mesh_of(machine)
        self.cache = cache
        self.prefix_columns, self.ring = prefix_columns, ring
        tokens = jnp.zeros((1, 8), jnp.int32)
        boxed = jax.eval_shape(self.model.init, jax.random.key(0), tokens, tokens, Visibility(tokens))["params"]
        shapes = nn.meta.unbox(boxed)
        settings = SimpleNamespace(dtype=config.dtype, weights=weights)
        self.params = jax.eval_shape(lambda tree: precision.kept(tree, settings), shapes)
        self.params_at = quantised.placed(self.params, Placement(self.mesh, rules.PRESETS["tensor"]).of_params(boxed))
        self.prefilled = jax.eval_shape(lambda: kv_cache.zeros(config, SOURCES, prefix_columns, cache))
        self.prefilled_at = self._at(None, "tensor")  # every group may take any source

    def _at(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, P(*axes))

    def shapes(self, slots: int, width: int) -> decode.Shapes:
        return decode.Shapes(slots, width, SOURCES, self.prefix_columns, self.ring, CHUNK, 2, 0, self.cache)

    def slots(self, shapes: decode.Shapes) -> tuple[decode.Slots, decode.Slots]:
        """Shapes of the slots, and where they lie: keys and values by slot (or group) and head, all else by slot."""
        slots = jax.eval_shape(lambda: decode.empty(self.model.config, shapes))
        axes = {0: (), 3: ("data", "tensor"), 4: ("data", "tensor")}
        return slots, jax.tree.map(lambda x: self._at(*axes.get(x.ndim, ("data",))), slots)

    def decode_chunk(self, shapes: decode.Shapes, layout: str) -> Program:
        slots, slots_at = self.slots(shapes)
        if layout == "compiler":
            slots_at = jax.tree.map(lambda x, at: Format(Layout.AUTO, at) if x.ndim > 2 else at, slots, slots_at)
        key = jax.eval_shape(lambda: jax.random.key(0))
        function = functools.partial(inspect.unwrap(decode.decode_chunk), self.model, shapes)
        return Program(function, (self.params, slots, key), (self.params_at, slots_at, self._at()), slots_at, (1,))

    def bind(self, shapes: decode.Shapes, slots_at: decode.Slots) -> Program:
        """`slots_at`: as decoding has them."""
        slots, _ = self.slots(shapes)
        source, fill = (jax.ShapeDtypeStruct((shapes.slots // shapes.width,), kind) for kind in (jnp.int32, bool))
        formats = slots_at, self.prefilled_at, *[self._at("data")] * 2
        return Program(inspect.unwrap(decode.bind), (slots, self.prefilled, source, fill), formats, slots_at, (0,))

    def insert(self, shapes: decode.Shapes, slots_at: decode.Slots) -> Program:
        """`slots_at`: as decoding has them."""
        slots, _ = self.slots(shapes)
        kinds = dict.fromkeys(("prefix", "token", "limit", "top_k"), jnp.int32)
        kinds |= {"temperature": jnp.float32, "top_p": jnp.float32, "fill": bool}
        request = {name: jax.ShapeDtypeStruct((shapes.slots,), kind) for name, kind in kinds.items()}
        request["name"] = jax.ShapeDtypeStruct((shapes.slots, 2), jnp.uint32)
        return Program(inspect.unwrap(decode.insert), (slots, request), (slots_at, self._at("data")), slots_at, (0,))

    @functools.cached_property
    def prefilling(self) -> Any:
        """The compiled `prefill`, the same for any number of slots."""
        tokens, count = (
            jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((SOURCES, self.prefix_columns), (SOURCES,))
        )
        function = functools.partial(inspect.unwrap(decode.prefill), self.model, self.shapes(1, 1))
        formats = self.params_at, *[self._at("data")] * 3
        return Program(function, (self.params, tokens, count, count), formats, self.prefilled_at).compile()

    def bytes(self, tree: Any, at: Any) -> int:
        """Of arrays, on each device."""
        at = jax.tree.broadcast(at, tree)
        shards = jax.tree.map(lambda x, at: int(np.prod(at.shard_shape(x.shape))) * x.dtype.itemsize, tree, at)
        return sum(jax.tree.leaves(shards))


def memory(compiled: Any, beside: int) -> dict[str, int]:
    """Bytes of a program on each device, and of what stays there beside its arguments."""
    found = compiled_programs.memory(compiled)
    return {"arguments": found.arguments, "temporaries": found.temporaries, "peak": found.peak, "beside": beside}


def programs(sampler: Sampler, shapes: decode.Shapes, layout: str) -> dict[str, dict[str, int]]:
    """The memory of each program.

    Raises:
      TooLarge: one of them has no room.
    """
    weights = sampler.bytes(sampler.params, sampler.params_at)
    slots = sampler.bytes(*sampler.slots(shapes))
    prefilled = sampler.bytes(sampler.prefilled, sampler.prefilled_at)
    decoding = sampler.decode_chunk(shapes, layout).compile()
    slots_at = decoding.input_formats[0][1]
    found = {
        "decode_chunk": memory(decoding, prefilled),
        "bind": memory(sampler.bind(shapes, slots_at).compile(), weights),
        "insert": memory(sampler.insert(shapes, slots_at).compile(), weights + prefilled),
        "prefill": memory(sampler.prefilling, slots + prefilled),
    }
    for name, parts in found.items():
        if parts["peak"] + parts["beside"] > sampler.machine.memory:
            raise TooLarge(f"{name} takes {size(parts['peak'])} beside {size(parts['beside'])}")
    return found


def most_slots(sampler: Sampler, width: int, layout: str) -> dict[str, Any]:
    """The largest number of slots that fits, the memory of its programs, and why twice as many do not fit."""
    start, least = time.perf_counter(), sampler.mesh.shape["data"] * width  # a group lies on one device of that axis
    weights = sampler.bytes(sampler.params, sampler.params_at)

    def alone(count: int) -> int:
        return weights + sampler.bytes(*sampler.slots(sampler.shapes(count, width)))

    count = least
    while alone(2 * count) <= sampler.machine.memory:
        count *= 2
    refusal = f"weights and slots alone take {size(alone(2 * count))}"
    while count >= least:
        try:
            found = programs(sampler, sampler.shapes(count, width), layout)
        except TooLarge as error:
            refusal = str(error)
            count //= 2
        else:
            break
    else:
        count, found = 0, {}
    return {"slots": count, "programs": found, "refusal": refusal, "seconds": round(time.perf_counter() - start)}


def table(found: Sequence[dict[str, Any]]) -> str:
    """A row for each program, in GiB on each device, as Markdown."""
    sizes = "arguments", "temporaries", "peak", "beside", "share"
    names = "model", "machine", "weights", "cache", "layout", "width", "slots"
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
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=["compiler"])
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # a TPU that is there need not be taken
    jax.config.update("jax_enable_compilation_cache", False)  # it would keep what it cannot read without a TPU
    found = []
    cases = itertools.product(options.models, options.topologies, options.weights, options.cache)
    for model, machine, weights, cache in cases:
        sampler = Sampler(MODELS[model], MACHINES[machine], weights=weights, cache=cache)
        for width, layout in itertools.product(options.widths, options.layouts):
            about = {"model": model, "machine": machine, "mesh": dict(sampler.mesh.shape), "weights": weights}
            about |= {"cache": cache, "width": width, "layout": layout}
            found.append(about | most_slots(sampler, width, layout))
            slots, seconds = found[-1]["slots"], found[-1]["seconds"]
            bits = f"weights {weights}, cache {cache}"
            say(f"{model} on {machine}, {bits}, groups of {width}, {layout}: {slots} slots, {seconds} s")
    print(table(found))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
