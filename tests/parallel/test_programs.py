"""What compiled programs take, and when two are the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.parallel import programs, roofline
from glore_jax.parallel.collectives import Moved
from glore_jax.parallel.programs import Memory
from glore_jax.parallel.topologies import CHIPS

X = jax.ShapeDtypeStruct((8, 8), jnp.float32)
ALONE = """
import jax, jax.numpy as jnp
from glore_jax.parallel import programs

jax.config.update("jax_platforms", "cpu")


def renamed(matrix):
    return jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ matrix), matrix)


text = jax.jit(renamed).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile().as_text()
print(programs.fingerprint(text))
"""


def looped(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 3, lambda _, y: jnp.tanh(y @ x), x)


def once_more(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 4, lambda _, y: jnp.tanh(y @ x), x)


def of(function) -> str:
    return programs.fingerprint(jax.jit(function).lower(X).compile().as_text())


def test_a_fingerprint_is_of_what_is_computed():
    assert of(looped) == of(looped)
    assert of(looped) != of(once_more)
    assert of(lambda a: jnp.sin(a) + 1) != of(lambda a: jnp.sin(a) + 2)
    found = programs.fingerprint("HloModule a\n\nENTRY %m.1 (p: f32[]) -> f32[] {\n  %p.2 = f32[] parameter(0)\n}")
    assert found == programs.fingerprint(
        'HloModule b\n\nFileNames\n1 "x.py"\n\nENTRY %other (q: f32[]) -> f32[] {\n'
        '  %q = f32[] parameter(0), metadata={op_name="jit({b}) \\"f\\"" stack_frame_id=3}\n}'
    )


def test_another_process_finds_the_same_under_another_name():
    """The name of a function and its arguments, and where it stands, do not count."""
    root = Path(__file__).parents[2]
    settings = {"jax_num_cpu_devices": 2, "jax_numpy_rank_promotion": "raise"}
    lines = "\n".join(f'jax.config.update("{name}", {value!r})' for name, value in settings.items())
    code = ALONE.replace("\n\ndef", f"\n{lines}\n\n\ndef", 1)
    alone = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert alone.stdout.strip() == of(looped)


def test_bytes_are_of_what_lies_on_one_device():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
    tree = {"a": jax.ShapeDtypeStruct((4, 6), jnp.bfloat16), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    at = {"a": NamedSharding(mesh, P("x")), "b": NamedSharding(mesh, P())}
    assert programs.bytes_of(programs.shapes(tree, at)) == 2 * 6 * 2 + 3 * 4
    assert programs.bytes_of(programs.shapes(tree, NamedSharding(mesh, P()))) == 4 * 6 * 2 + 3 * 4


def test_memory_of_a_program():
    found = programs.memory(jax.jit(lambda x: x @ x).lower(X).compile())
    assert found.arguments == found.results == 8 * 8 * 4
    assert found.peak >= found.arguments


def test_a_roofline_by_hand():
    """Of v5e: 197 TFLOP/s, 819 GB/s of memory, 200 GB/s of links."""
    memory = Memory(arguments=800_000_000, results=19_000_000, temporaries=200_000_000, peak=2**30)
    moved = Moved(
        {"all-gather": 100_000_000, "all-reduce": 7}, {"all-gather": 90_000_000, "all-reduce": 10_000_000}, {}, 0
    )
    found = roofline.of(CHIPS["v5e"], 1.97e11, memory, moved)
    assert found.compute == pytest.approx(1e-3)
    assert found.memory == pytest.approx((0.8 + 0.019 + 2 * (0.2 + 0.1)) / 819)
    assert found.links == pytest.approx(0.1 / 200)
    assert (found.bound, found.seconds) == ("memory", found.memory)
    sixteen = roofline.of(CHIPS["v5e"], 1.97e11, memory, moved, passes=16)
    assert sixteen.memory == pytest.approx(found.memory + 15 * 0.8 / 819)
