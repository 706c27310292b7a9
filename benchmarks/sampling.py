"""Tokens a second of the sampler beside transformers: the same weights, the same ragged prompts, sampled at 1.

python benchmarks/sampling.py runs/arithmetic            the student of a run, on 1,024 questions of train
python benchmarks/sampling.py runs/arithmetic --large    a random Llama of 134 million parameters, 128 prompts

The student's answers end by themselves, after 20 to 288 tokens. The random model hardly ever ends, so its answers have
limits drawn from 8 to 128; transformers has one limit for a batch, and of its tokens those within each one's count.

Needs the extra `parity`. Prints JSON: tokens a second of either side (the median, compiled and warm), of
transformers for each batch size and, on 32 prompts, in its continuous-batching mode; the same for each second of
processor time, which other work on the machine disturbs less; their ratio at its best; what share that is of the
machine's rates, measured in the same run: of its matrix products the sampler's arithmetic, and of reading memory the
weights and the keys and values that its decoding steps read (which may lie in a cache, so the share can be above 1).
Ten minutes on two cores either way; a part of it with `--batches`:

python benchmarks/sampling.py runs/arithmetic --batches 256 --streamed 0 --repeats 1      a minute and a half
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from peer import Peer

from glore_jax import cli, files, workfolder
from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.parallel import placement as placements
from glore_jax.records import Problem
from glore_jax.sampling import decode
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Request, Source
from glore_jax.stages import artifacts
from glore_jax.text import formats, pretrained

LARGE = DecoderConfig(32_000, d_model=768, num_layers=12, num_heads=12, num_kv_heads=12, head_dim=64, d_ff=2048)

Given = tuple[Decoder, Any, list[list[int]], list[int], Any, tuple[int, int]]


def student(workdir: Path, prompts: int) -> Given:
    """Model, parameters, prompts, limits, sampling settings and the end and padding tokens of a run."""
    model, params = artifacts.read_model(workdir / "expert_iteration", "float32")
    tokenizer = pretrained.reopen(workdir / "base")
    problems = files.read_table(workdir / "problems" / "train.parquet", Problem)[:prompts]
    sources = [formats.encode_prompt(tokenizer, problem.question) for problem in problems]
    settings = ConfigDict(workfolder.read_config(workdir)).sampling
    settings.update({"dtype": "float32", "weights": "same", "cache": "same"})  # as transformers computes
    limits = [settings.max_new_tokens] * prompts
    return model, params["decoder"], sources, limits, settings, (tokenizer.eos, tokenizer.pad)


def large(prompts: int) -> Given:
    model = Decoder(LARGE)
    draw = np.random.default_rng(0)
    sources = [draw.integers(3, LARGE.vocab_size, size).tolist() for size in draw.integers(32, 128, prompts)]
    settings = ConfigDict(
        {"dtype": "float32", "weights": "same", "cache": "same", "slots": 64, "sources": 16, "chunk": 8}
        | {"buckets": (64, 96, 128), "max_new_tokens": 128}
    )
    limits = draw.integers(8, 129, prompts).tolist()
    return model, decoder.init(model, jax.random.key(0)), sources, limits, settings, (2, 0)


def rate(run: Callable[[int], int], repeats: int) -> tuple[float, float]:
    """Tokens a second, and a second of processor time: the medians of several; `run(seed)` returns tokens."""
    found = []
    for seed in range(1, repeats + 1):
        start, used = time.perf_counter(), time.process_time()
        tokens = run(seed)
        found.append((tokens / (time.perf_counter() - start), tokens / (time.process_time() - used)))
    wall, processor = map(statistics.median, zip(*found, strict=True))
    return wall, processor


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


def reading_rate(rows: int = 8, size: int = 2**24) -> float:
    """Bytes a second that all devices together read from memory, the best of several."""
    x = jax.device_put(jnp.ones((rows, size)), placements.make().at("batch"))
    total = jax.jit(lambda a: a.reshape(len(a), -1, 64).max(axis=1))  # of 64 columns, so that it is vectorized
    total(x).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        total(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return x.nbytes / best


class Reading:
    """Counts what decoding steps read: the weights, on each device, and all columns of the cache."""

    def __init__(self) -> None:
        self.bytes, self._chunk = 0, decode.decode_chunk

    def __call__(self, model: Decoder, shapes: decode.Shapes, params: Any, slots: decode.Slots, key: jax.Array) -> Any:
        weights, cache = (sum(x.nbytes for x in jax.tree.leaves(tree)) for tree in (params, slots.cache))
        self.bytes += shapes.chunk * (jax.device_count() * weights + cache)
        return self._chunk(model, shapes, params, slots, key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="a finished run")
    parser.add_argument("--large", action="store_true", help="134 million parameters, random")
    parser.add_argument("--prompts", type=int, default=0, help="1,024, or 128 with --large")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="*", help="of transformers: 64 128 256, or 16 64 with --large")
    parser.add_argument("--streamed", type=int, default=32, help="prompts of its continuous batching, which takes long")
    options = parser.parse_args()
    # Two devices would read large weights twice a step, and multiply half as many rows with them.
    cli.prepare_jax(ConfigDict({"devices": 1 if options.large else 2}))
    count = options.prompts or (128 if options.large else 1024)
    given = large(count) if options.large else student(options.workdir, count)
    model, params, sources, limits, settings, (eos, pad) = given
    engine = Engine(model, params, settings, eos, pad)
    decode.decode_chunk = reading = Reading()
    requests = [
        Request(str(i), Source(s), len(s), 1.0, n) for i, (s, n) in enumerate(zip(sources, limits, strict=True))
    ]

    def ours(seed: int) -> int:
        found = engine.generate(requests, jax.random.key(seed))
        return sum(len(completion.tokens) for completion in found)

    key = jax.random.key(0)
    peer = Peer(model, params, eos, pad)
    ordered = sorted(zip(sources, limits, strict=True), key=lambda row: len(row[0]))  # its padding is least then

    def theirs(batch: int) -> Callable[[int], int]:
        def run(seed: int) -> int:
            written = 0
            for group in (ordered[i : i + batch] for i in range(0, len(ordered), batch)):
                prompts, mine = zip(*group, strict=True)
                found = peer.sample(prompts, [len(s) for s in prompts], 1, max(mine))
                written += sum(min(len(row), most) for (row,), most in zip(found, mine, strict=True))
            return written

        return run

    # Compiles the same programs, in a step of each.
    engine.generate([dataclasses.replace(r, limit=1, room=n) for r, n in zip(requests, limits, strict=True)], key)
    reading.bytes, start = 0, time.perf_counter()
    found = {"glore_jax": rate(ours, options.repeats)}
    read = reading.bytes / (time.perf_counter() - start)
    peer.sample(sources[:2], [len(s) for s in sources[:2]], 1, 8)
    batches = ((16, 64) if options.large else (64, 128, 256)) if options.batches is None else options.batches
    found |= {f"transformers, batch {size}": rate(theirs(size), options.repeats) for size in batches if size <= count}
    if options.streamed:
        try:
            few, most = sources[: options.streamed], max(limits)
            found["transformers, continuous batching"] = rate(lambda seed: peer.stream(few, most), options.repeats)
        except Exception as error:  # whatever it lacks on this machine is a finding, not a failure of this benchmark
            print(json.dumps({"transformers, continuous batching": f"{type(error).__name__}: {error}"[:300]}))
    for unit, at in (("second", 0), ("processor_second", 1)):
        rates = {name: value[at] for name, value in found.items()}
        best = max((value for name, value in rates.items() if name != "glore_jax"), default=float("nan"))
        shown = {name: round(value) for name, value in rates.items()}
        print(json.dumps({f"tokens_per_{unit}": shown, "ratio": round(rates["glore_jax"] / best, 2)}))
    parameters = sum(x.size for x in jax.tree.leaves(params)) - model.config.vocab_size * model.config.d_model
    multiplied = 2 * parameters * found["glore_jax"][0]
    machine = {"matmul_flops": round(matmul_rate()), "reading_bytes": round(reading_rate())}
    shares = {"of_matmul": multiplied / machine["matmul_flops"], "of_reading": read / machine["reading_bytes"]}
    print(json.dumps({"machine_per_second": machine, "share": {name: round(x, 3) for name, x in shares.items()}}))


if __name__ == "__main__":
    main()
