"""Plans of the TPU compiler beside what it compiles in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from glore_jax.parallel import planning

# A chain of products on four chips. The process ends while the compiler works on.
SCRIPT = """
import dataclasses, json, os, sys
import jax, jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from glore_jax.parallel import collectives, planning, programs, topologies

jax.config.update("jax_enable_compilation_cache", False)
mesh = Mesh(topologies.devices(topologies.parse("v5e:2x2")), ("x",), axis_types=(AxisType.Auto,))
rows, whole = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
x = jax.ShapeDtypeStruct((int(sys.argv[1]), 256), jnp.float32, sharding=rows)
w = jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=rows)
lowered = jax.jit(lambda x, w: jnp.sum(jnp.sin(x @ w) @ w), out_shardings=whole).lower(x, w)
for made in (programs.made, planning.plan):
    try:
        memory, text = made(lowered)
        print(json.dumps([dataclasses.asdict(memory), dataclasses.asdict(collectives.read(text))]), flush=True)
    except programs.TooLarge as error:
        print(json.dumps(str(error)), flush=True)
os._exit(0)
"""


def run(rows: int) -> list:
    pytest.importorskip("libtpu", reason="the extra `tpu-compile` is not installed")
    words, environment = [sys.executable, "-c", SCRIPT, str(rows)], os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_plan_says_what_is_compiled():
    (compiled, moved), (planned, moved_by_plan) = run(rows=4096)
    assert planned["arguments"] == compiled["arguments"] == (1024 + 64) * 256 * 4
    assert planned["results"] == compiled["results"]
    assert planned["temporaries"] == pytest.approx(compiled["temporaries"], abs=2**20)
    assert planned["arguments"] < planned["peak"] <= planned["arguments"] + planned["results"] + 2**22
    assert moved_by_plan == moved
    assert set(moved["bytes"]) == {"all-gather", "all-reduce"}


def test_a_plan_without_room_says_so():
    refusals = run(rows=2**26)
    assert refusals[0] == refusals[1]
    assert "hbm" in refusals[0].lower()


def test_buffers_in_other_memory_do_not_count():
    found = planning.memory(
        "allocation 0: size 8, parameter 0, shape |f32[2]| at ShapeIndex {}:\n"
        "allocation 1: size 4, color 5, parameter 1, shape |f32[1]| at ShapeIndex {}:\n"
        "allocation 2: size 64, preallocated-temp:\n value: <1 x @0> (size=64,offset=0): f32[16]\n"
    )
    assert (found.arguments, found.results, found.temporaries, found.peak) == (8, 0, 64, 72)
