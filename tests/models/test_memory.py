"""How much of the host a large checkpoint takes: its parameters, and little on top."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoints
import jax.numpy as jnp
import numpy as np
import pytest

from glore_jax.models import tensors

GIB = 1 << 30
SIZES = {"vocab_size": 64_000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 26, "head_dim": 64}
RAW = checkpoints.config("llama3") | SIZES | {"num_attention_heads": 32, "num_key_value_heads": 32}
LOAD = """
import json, resource, sys
import jax
from glore_jax.models import huggingface
model, params = huggingface.load(sys.argv[1])
leaves = jax.tree.leaves(jax.block_until_ready(params))
unit = 1 if sys.platform == "darwin" else 1024
peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"bytes": sum(x.nbytes for x in leaves), "count": sum(x.size for x in leaves), "peak": peak}))
"""


def source(name: str, shape: tuple[int, ...], seed: int) -> tensors.Source:
    def array() -> np.ndarray:
        block = np.random.default_rng(seed).standard_normal(shape[-1], np.float32).astype(jnp.bfloat16)
        return np.broadcast_to(block, shape)

    return tensors.Source(name, np.dtype(jnp.bfloat16), shape, array)


@pytest.mark.slow
def test_two_billion_parameters_take_two_gib_on_top_at_most(tmp_path: Path):
    """4 GB on the disk, in shards; loaded in a process of its own, whose peak memory is asked for."""
    shapes = checkpoints.shapes(RAW)
    tensors.write_folder(tmp_path, [source(n, s, i) for i, (n, s) in enumerate(shapes.items())], 10**9)
    (tmp_path / "config.json").write_text(json.dumps(RAW))
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["count"] > 2e9
    assert found["peak"] <= found["bytes"] + 2 * GIB
