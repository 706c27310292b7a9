"""What the host does for each record, from a thousand records to a million: it should cost the same.

python benchmarks/host_work.py
python benchmarks/host_work.py --records 1000 100000

Problems and solutions are those of the embedded task, a few hundred that repeat; work on each is done anew. Measured:

format    a problem and its worked solution to tokens, as an example
pack      an example into a row, and rows to batches: a whole epoch
write     a solution into a table of Parquet
read      a solution out of it
plan      a request to a pass of the sampler, of windows as `sampling.work` has them

Prints JSON: microseconds of processor time a record (so that other work on the machine counts little), by part and
number of records, the most against the least of each part, and the peak of resident memory. Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glore_jax import configuration, files
from glore_jax.method import expert_iteration as ei
from glore_jax.progress import say
from glore_jax.records import Problem, Solution
from glore_jax.sampling import passes
from glore_jax.stages import taking_base
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import formats
from glore_jax.text.tokenizers import Tokenizer
from glore_jax.training import batches

ROOT = Path(__file__).parents[1]
DIFFERENT = 400  # problems
SAMPLES, WINDOW = 8, 8192  # requests that continue one source, and that are planned together
LEAST = 0.5  # seconds of processor time that a part is repeated for


class Host:
    """The records, and what is done with them."""

    def __init__(self, folder: Path):
        self.path = folder / "solutions.parquet"
        self.config: Any = configuration.load(str(ROOT / "configs" / "arithmetic.py"))
        self.tokenizer: Tokenizer = taking_base.tokenizer_of(self.config)
        self.problems = [make_problem(0, "train", n, self.config.task.step_weights) for n in range(DIFFERENT)]
        self.examples = ei.gold_examples(self.tokenizer, self.problems, prefix_lm=True)
        self.solutions = [self._solution(problem) for problem in self.problems]

    def _solution(self, problem: Problem) -> Solution:
        steps = formats.split_steps(problem.solution)
        tokens, ends = formats.encode_solution(self.tokenizer, steps)
        return Solution(problem.id, problem.id, tuple(tokens), tuple(ends), "\n".join(steps), right=True)

    def parts(self, count: int) -> dict[str, Callable[[], object]]:
        """What is measured of so many records, in this order."""
        problems = many(self.problems, count)
        examples, solutions = many(self.examples, count), many(self.solutions, count)
        solutions = [dataclasses.replace(s, id=f"{s.id}/{n}") for n, s in enumerate(solutions)]
        return {
            "format": lambda: ei.gold_examples(self.tokenizer, problems, prefix_lm=True),
            "pack": lambda: self.epoch(examples),
            "write": lambda: files.write_table(self.path, solutions, Solution),
            "read": lambda: files.read_table(self.path, Solution),
            "plan": lambda: self.plan(count),
        }

    def epoch(self, examples: list[batches.Example]) -> int:
        """The batches of one epoch, made; returns their number."""
        settings = self.config.sft.train
        rows = len(batches.pack(examples, settings.row_length))
        feed = batches.epochs(examples, settings.row_length, settings.rows, seed=0)
        return sum(1 for _ in itertools.islice(feed, max(1, rows // settings.rows)))

    def plan(self, count: int) -> None:
        settings = self.config.sampling
        for start in range(0, count, WINDOW):
            numbers = range(start, min(start + WINDOW, count))
            lengths = [1 + self.examples[n // SAMPLES % len(self.examples)].source for n in numbers]
            sizes = settings.buckets, settings.max_new_tokens, settings.slots, 1
            passes.plan(lengths, [settings.max_new_tokens] * len(lengths), *sizes, [n // SAMPLES for n in numbers])


def many(rows: list[Any], count: int) -> list[Any]:
    return list(itertools.islice(itertools.cycle(rows), count))


def microseconds(part: Callable[[], object], count: int) -> float:
    """Of processor time, a record."""
    start, times = time.process_time(), 0
    while times == 0 or time.process_time() - start < LEAST:
        part()
        times += 1
    return (time.process_time() - start) * 1e6 / (times * count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", nargs="+", type=int, default=[10**3, 10**4, 10**5, 10**6])
    options = parser.parse_args()
    found: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        for count in options.records:
            for name, part in host.parts(count).items():
                found.setdefault(name, {})[count] = round(microseconds(part, count), 2)
                say(f"{name}, {count:,} records: {found[name][count]} us each")
    spread = {name: round(max(row.values()) / min(row.values()), 2) for name, row in found.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"microseconds": found, "most_against_least": spread, "peak_bytes": peak}, indent=1))


if __name__ == "__main__":
    main()
