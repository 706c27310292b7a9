"""Tokens a second of the sampler beside transformers: the same weights, the same ragged prompts, sampled at 1.

python benchmarks/sampling.py runs/arithmetic            the student of a run, on questions of train
python benchmarks/sampling.py runs/arithmetic --large    a random Llama of 134 million parameters, 64 tokens each

Needs the extra `parity`. Prints JSON: tokens a second of either side (median of three, compiled and warm), of
transformers for each batch size, their ratio at its best one, and the share of the machine's matrix products (measured
in the same run) that the sampler's arithmetic comes to. Four minutes on two cores, ten with --large.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from peer import Peer

from glore_jax import cli, files, workfolder
from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.records import Problem
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Request, Source
from glore_jax.stages import artifacts
from glore_jax.text import formats, pretrained

LARGE = DecoderConfig(32_000, d_model=768, num_layers=12, num_heads=12, num_kv_heads=12, head_dim=64, d_ff=2048)
REPEATS = 3


def student(workdir: Path, prompts: int) -> tuple[Decoder, Any, list[list[int]], Any, Any]:
    """Model, parameters, prompts, sampling settings and tokenizer of a run."""
    model, params = artifacts.read_model(workdir / "expert_iteration", "float32")
    tokenizer = pretrained.reopen(workdir / "base")
    problems = files.read_table(workdir / "problems" / "train.parquet", Problem)[:prompts]
    sources = [formats.encode_prompt(tokenizer, problem.question) for problem in problems]
    settings = ConfigDict(workfolder.read_config(workdir)).sampling
    return model, params["decoder"], sources, settings, (tokenizer.eos, tokenizer.pad)


def large(prompts: int) -> tuple[Decoder, Any, list[list[int]], Any, Any]:
    model = Decoder(LARGE)
    draw = np.random.default_rng(0)
    sources = [draw.integers(3, LARGE.vocab_size, size).tolist() for size in draw.integers(32, 128, prompts)]
    settings = SimpleNamespace(slots=64, sources=32, chunk=16, buckets=(128,), max_new_tokens=64)
    return model, decoder.init(model, jax.random.key(0)), sources, settings, (2, 0)


def rate(run: Callable[[int], int]) -> float:
    """Tokens a second, the median of several; `run(seed)` returns tokens."""
    run(0)
    found = []
    for seed in range(1, REPEATS + 1):
        start = time.perf_counter()
        found.append(run(seed) / (time.perf_counter() - start))
    return statistics.median(found)


def matmul_rate(size: int = 2048) -> float:
    """Floating-point operations a second of a float32 matrix product, the best of several."""
    x = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="a finished run")
    parser.add_argument("--large", action="store_true", help="134 million parameters, random")
    parser.add_argument("--prompts", type=int, default=256)
    options = parser.parse_args()
    cli.prepare_jax(ConfigDict({"devices": 2}))
    count = min(options.prompts, 64) if options.large else options.prompts
    model, params, sources, settings, (eos, pad) = large(count) if options.large else student(options.workdir, count)
    limit = settings.max_new_tokens
    engine = Engine(model, params, settings, eos, pad)
    requests = [Request(str(i), Source(source), len(source), 1.0) for i, source in enumerate(sources)]

    def ours(seed: int) -> int:
        found = engine.generate(requests, jax.random.key(seed))
        return sum(len(completion.tokens) for completion in found)

    peer = Peer(model, params, eos, pad)
    ordered = sorted(sources, key=len)  # its padding is least then

    def theirs(batch: int) -> Callable[[int], int]:
        def run(seed: int) -> int:
            groups = [ordered[i : i + batch] for i in range(0, len(ordered), batch)]
            found = [peer.sample(group, [len(s) for s in group], 1, limit) for group in groups]
            return sum(len(row) for group in found for rows in group for row in rows)

        return run

    batches = [size for size in (16, 64, 128) if size <= count]
    found = {"glore_jax": rate(ours)} | {f"transformers, batch {size}": rate(theirs(size)) for size in batches}
    try:
        found["transformers, continuous batching"] = rate(lambda seed: peer.stream(sources, limit))
    except Exception as error:  # whatever it lacks on this machine is a finding, not a failure of this benchmark
        print(json.dumps({"transformers, continuous batching": f"{type(error).__name__}: {error}"[:300]}))
    best = max(value for name, value in found.items() if name != "glore_jax")
    parameters = sum(x.size for x in jax.tree.leaves(params)) - model.config.vocab_size * model.config.d_model
    reached = 2 * parameters * found["glore_jax"] / matmul_rate()
    rates = {name: round(value) for name, value in found.items()}
    print(json.dumps({"tokens_per_second": rates, "ratio": round(found["glore_jax"] / best, 2)}))
    print(json.dumps({"parameters_multiplied": parameters, "share_of_matmul_rate": round(reached, 3)}))


if __name__ == "__main__":
    main()
