"""What step labels cost beside the usual way: transformers, a prompt for each prefix, eight samples of it.

python benchmarks/labelling.py runs/arithmetic

Labels 200 drafts of the run's student (right and wrong ones as they come) by its own rollouts, K = 8: by the adaptive
search, which leaves out what cannot change a label or a refiner's pair (`backward`), or a label (`first`); by rolling
out every prefix of every draft (`all`); and, the first few drafts, so by transformers. Needs the extra `parity`.

Prints JSON: seconds a draft of each (the median of three, of `all` and transformers of one), ratios, rollouts, sampled
tokens (also those of rollouts that were not needed in the end), tokens prefilled (once a draft, or once a prefix), and
how many labels the oracle agrees with. Compiled and warm; about six minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import torch  # pyright: ignore[reportMissingImports]
from ml_collections import ConfigDict
from peer import Peer

from glore_jax import cli, files, tasks, workfolder
from glore_jax.method import labels as labelling
from glore_jax.method import verifying
from glore_jax.records import Problem, Rollout, Solution
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.rollouts import Rollouts
from glore_jax.stages import artifacts
from glore_jax.text import formats, pretrained
from glore_jax.text.tokenizers import Tokenizer

Found = Mapping[str, Sequence[Rollout]]
REPEATS = {"backward": 3, "first": 3, "all": 1}


class Labelling:
    """The drafts of a run, and both ways to roll them out."""

    def __init__(self, workdir: Path, drafts: int):
        self.config: Any = ConfigDict(workfolder.read_config(workdir))
        self.config.sampling.update({"dtype": "float32", "weights": "same", "cache": "same"})  # as transformers
        self.tokenizer: Tokenizer = pretrained.reopen(workdir / "base")
        self.problems = {p.id: p for p in files.read_table(workdir / "problems" / "train.parquet", Problem)}
        traces = files.read_table(workdir / "traces" / "traces.parquet", Solution)
        self.traces = [trace for trace in traces if trace.num_steps > 1 and trace.id.endswith("/0")][:drafts]
        model, params = artifacts.read_model(workdir / "expert_iteration", "float32")
        eos, pad = self.tokenizer.eos, self.tokenizer.pad
        self.engine = Engine(model, params["decoder"], self.config.sampling, eos, pad)
        self.tokens = 0
        self.peer = Peer(model, params["decoder"], eos, pad)

    def ours(self, search: str) -> Found:
        settings = self.config.labels.copy_and_resolve_references()
        settings.update({"search": search, "boundary_rollouts": 0})
        traces = [trace for trace in self.traces if search == "all" or not trace.right]
        temperature, key = self.config.sampling.temperature, jax.random.key(0)
        rolling = Rollouts(self.engine, self.tokenizer, self.problems, temperature, key, self.meter)
        return by_trace(verifying.collect(rolling, traces, settings, lambda count: None))

    def meter(self, rollouts: int, tokens: int) -> None:
        self.tokens += tokens

    def theirs(self, drafts: int) -> Found:
        torch.manual_seed(0)
        found, most = [], self.config.sampling.max_new_tokens
        for trace in self.traces[:drafts]:
            problem = self.problems[trace.problem_id]
            prompt = formats.encode_prompt(self.tokenizer, problem.question)
            for i in range(1, trace.num_steps):
                written = trace.step_ends[i - 1]
                source = [*prompt, *trace.tokens[:written]]
                (samples,) = self.peer.sample([source], [len(prompt)], self.config.labels.rollouts, most - written)
                found += [self.rollout(trace, i, k, tokens) for k, tokens in enumerate(samples)]
        return by_trace(found)

    def rollout(self, trace: Solution, prefix: int, sample: int, tokens: Sequence[int]) -> Rollout:
        ends = formats.step_ends(self.tokenizer, tokens)
        text = formats.steps_text(self.tokenizer, tokens, ends)
        right = formats.is_right(text, self.problems[trace.problem_id].answer)
        return Rollout(trace.id, prefix, sample, tuple(tokens), ends, text, right)

    def labels(self, found: Found, drafts: int) -> list[tuple[int, ...]]:
        made = labelling.make(self.traces[:drafts], found, self.config.labels.consistency, True)
        return [entry.labels for entry in made]

    def agreement(self, found: Found, drafts: int) -> float:
        """Share of the labels of the first drafts that the oracle agrees with."""
        oracle = tasks.oracle(self.config.task.name)
        if oracle is None:
            raise SystemExit("labels are compared with the oracle, which only the embedded task has")
        traces = self.traces[:drafts]
        false = {t.id: oracle(self.problems[t.problem_id].facts, t.steps) for t in traces}
        made = labelling.make(traces, found, self.config.labels.consistency, True)
        pairs = labelling.agreement(made, false)
        return sum(right for right, _ in pairs) / sum(count for _, count in pairs)

    def prefilled(self) -> dict[str, int]:
        """Tokens that are prefilled for every prefix of every draft: once a draft, and once a prefix."""
        shared = unshared = 0
        for trace in self.traces:
            prompt = len(formats.encode_prompt(self.tokenizer, self.problems[trace.problem_id].question))
            shared += prompt + trace.step_ends[-2]
            unshared += sum(prompt + end for end in trace.step_ends[:-1])
        return {"shared": shared, "unshared": unshared}


def by_trace(rollouts: Sequence[Rollout]) -> Found:
    found: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        found.setdefault(rollout.trace_id, []).append(rollout)
    return found


def timed(run: Callable[[], Found]) -> tuple[Found, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="a finished run of the embedded task")
    parser.add_argument("--drafts", type=int, default=200)
    parser.add_argument("--peer-drafts", type=int, default=12, help="the usual way is timed on the first few")
    options = parser.parse_args()
    cli.prepare_jax(ConfigDict({"devices": 2}))
    work = Labelling(options.workdir, options.drafts)
    drafts, few = len(work.traces), options.peer_drafts
    found, seconds, sampled = {}, {}, {}
    for search, repeats in REPEATS.items():
        work.ours(search)  # compiles
        work.tokens = 0
        runs = [timed(lambda search=search: work.ours(search)) for _ in range(repeats)]
        found[search], seconds[search] = runs[0][0], statistics.median(taken for _, taken in runs)
        sampled[search] = {"rollouts": sum(map(len, found[search].values())), "tokens": work.tokens // repeats}
    work.theirs(1)
    usual, usual_seconds = timed(lambda: work.theirs(few))
    each = {search: taken / drafts for search, taken in seconds.items()} | {"transformers": usual_seconds / few}
    agree = {search: work.agreement(mine, drafts) for search, mine in found.items()}
    first = {search: work.agreement(mine, few) for search, mine in found.items()}
    first["transformers"] = work.agreement(usual, few)
    print(json.dumps({"drafts": drafts, "seconds_a_draft": {name: round(s, 4) for name, s in each.items()}}))
    print(json.dumps({"ratio": {name: round(each["transformers"] / each[name], 1) for name in found}}))
    labels = {search: work.labels(mine, drafts) for search, mine in found.items()}
    same = {search: mine == labels["all"] for search, mine in labels.items()}
    over = {search: round(counts["tokens"] / sampled["all"]["tokens"], 3) for search, counts in sampled.items()}
    print(json.dumps({"sampled": sampled, "tokens_over_exhaustive": over, "same_labels": same}))
    print(json.dumps({"prefilled_tokens": work.prefilled()}))
    print(json.dumps({"oracle_agrees": agree, f"on_the_first_{few}": first}))


if __name__ == "__main__":
    main()
