"""What sampling in fewer bits costs in accuracy, on the dev problems of a finished run, and what it saves in memory.

python benchmarks/precision.py runs/arithmetic
python benchmarks/precision.py runs/arithmetic --problems=64 --samples=1

The student of the run samples each problem greedily, and some times at temperature 1, in float32 and in each precision
of `sampling.dtype`, `sampling.weights` and `sampling.cache`. The randomness is the same in all of them, so a sample
differs from that in float32 where a precision has changed which token was drawn, and from there on. Prints a table, and
then JSON; a few minutes on two cores.

accuracy     percent of right answers, with a 95 % interval from a bootstrap over problems
difference   of that and the accuracy in float32, in points, on the same resampled problems
same         percent of the tokens in float32 that come before the first that differs
nats         mean absolute difference of the log-probabilities of these
weights      bytes of the parameters
slot         bytes of the keys and values of a slot that has a prefix of its own, of the largest bucket
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from glore_jax import cli, files, workfolder
from glore_jax.evaluation import statistics
from glore_jax.evaluation.statistics import Sums
from glore_jax.progress import say
from glore_jax.records import Problem
from glore_jax.sampling import kv_cache, solutions
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Completion, Request, Source
from glore_jax.stages import artifacts
from glore_jax.text import formats, pretrained

EXACT = {"dtype": "float32", "weights": "same", "cache": "same"}
PRECISIONS: dict[str, dict[str, str]] = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "int8 weights": {"weights": "int8"},
    "int8 cache": {"cache": "int8"},
    "both": {"weights": "int8", "cache": "int8"},
    "bfloat16 and both": {"dtype": "bfloat16", "weights": "int8", "cache": "int8"},
}


def alike(found: Completion, exact: Completion) -> int:
    """How many tokens come before the first that differs.

    >>> alike(Completion((5, 6, 8), "end", ()), Completion((5, 6, 7, 2), "end", ()))
    2
    """
    pairs = zip(found.tokens, exact.tokens, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(found.tokens), len(exact.tokens)))


def nearness(found: Sequence[Completion], exact: Sequence[Completion]) -> tuple[float, float]:
    """The share of tokens before the first that differs, and how far their log-probabilities are off."""
    apart, written = [], 0
    for mine, other in zip(found, exact, strict=True):
        size = alike(mine, other)
        apart.append(np.abs(np.subtract(mine.logprobs[:size], other.logprobs[:size])))
        written += len(other.tokens)
    every = np.concatenate(apart)
    return len(every) / written, float(every.mean())


class Student:
    """The student of a run, and some of its dev problems."""

    def __init__(self, workdir: Path, problems: int):
        self.settings: Any = ConfigDict(workfolder.read_config(workdir)).sampling
        self.model, params = artifacts.read_model(workdir / "expert_iteration", "float32")
        self.params = params["decoder"]
        self.tokenizer = pretrained.reopen(workdir / "base")
        self.problems = files.read_table(workdir / "problems" / "dev.parquet", Problem)[: problems or None]
        self.sources = [Source(formats.encode_prompt(self.tokenizer, p.question)) for p in self.problems]
        self.largest = max(self.settings.buckets)
        longest = max(len(source.tokens) for source in self.sources)
        self.settings.buckets = (min(b for b in self.settings.buckets if b >= longest),)  # one compilation is enough

    def engine(self, changes: dict[str, str]) -> Engine:
        settings = self.settings.copy_and_resolve_references()
        settings.update(EXACT | changes)
        return Engine(self.model, self.params, settings, self.tokenizer.eos, self.tokenizer.pad)

    def sample(self, engine: Engine, samples: int, temperature: float) -> tuple[list[Completion], np.ndarray]:
        """Completions, problem by problem, and [problems, 2] how many of each are right, and all."""
        requests = [
            Request(f"{problem.id}/{k}", source, len(source.tokens), temperature)
            for problem, source in zip(self.problems, self.sources, strict=True)
            for k in range(samples)
        ]
        found = engine.generate(requests, jax.random.key(0))
        owners = [problem for problem in self.problems for _ in range(samples)]
        made = [
            solutions.to_solution(self.tokenizer, r.id, p, c) for r, p, c in zip(requests, owners, found, strict=True)
        ]
        right = np.array([s.right for s in made], float).reshape(-1, samples).sum(axis=1)
        return found, np.stack([right, np.full(len(right), float(samples))], axis=1)


def memory(engine: Engine, columns: int) -> dict[str, int]:
    """Bytes of the weights, and of a slot with a prefix of so many columns."""
    config, ring, kind = engine.model.config, engine.settings.max_new_tokens, engine.settings.cache
    cache = jax.eval_shape(lambda: kv_cache.of_slots(config, 1, 1, columns, ring, kind))
    held = {"weights": engine.params, "slot": cache}
    return {name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) for name, tree in held.items()}


def measure(student: Student, samples: int) -> Iterator[dict[str, Any]]:
    """A row for each way of decoding and precision."""
    draws = statistics.resample_weights([p.id for p in student.problems])
    for way, count, temperature in (("greedy", 1, 0.0), ("temperature 1", samples, 1.0)):
        exact: tuple[list[Completion], np.ndarray] | None = None
        for name, changes in PRECISIONS.items():
            engine = student.engine(changes)
            found, sums = student.sample(engine, count, temperature)
            exact = exact or (found, sums)
            same, nats = nearness(found, exact[0])
            both = np.concatenate([sums, exact[1]], axis=1)
            less = statistics.estimate(
                Sums(both, lambda x: statistics.ratio(x[..., :2]) - statistics.ratio(x[..., 2:])), draws
            )
            row = {"way": way, "precision": name, "accuracy": statistics.estimate(Sums(sums), draws).__dict__}
            row |= {"difference": less.__dict__, "same": same, "nats": nats} | memory(engine, student.largest)
            say(f"{way}, {name}: {row['accuracy']['value']:.3f}")
            yield row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown; accuracies in percent."""

    def percent(found: dict[str, float], sign: str = "") -> str:
        return f"{100 * found['value']:{sign}.1f} ({100 * found['low']:{sign}.1f} to {100 * found['high']:{sign}.1f})"

    heads = "way", "precision", "accuracy", "difference", "same", "nats", "weights", "slot"
    lines = [heads, ("---", "---", *["---:"] * 6)]
    for row in rows:
        cells = row["way"], row["precision"], percent(row["accuracy"]), percent(row["difference"], "+")
        lines.append(
            (*cells, f"{100 * row['same']:.1f}", f"{row['nats']:.4f}", f"{row['weights']:,}", f"{row['slot']:,}")
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="a finished run")
    parser.add_argument("--problems", type=int, default=0, help="the first ones of dev; 0: all")
    parser.add_argument("--samples", type=int, default=4, help="of each problem at temperature 1")
    options = parser.parse_args()
    cli.prepare_jax(ConfigDict({"devices": 2}))
    rows = list(measure(Student(options.workdir, options.problems), options.samples))
    print(table(rows))
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
