"""A script for each process of a job: stages that train, sample and label, from a base model that knows nothing.

    python small_job.py WORKDIR [kill|stop PROCESS joined|rollouts|steps COUNT]

With the last words a process kills or stops itself when it has joined the others (once), rolled out so many parts, or
saved so many steps.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade
import jax
import tiny
from ml_collections import ConfigDict

from glore_jax import cli, configuration, files, pipeline
from glore_jax.models.decoder import DecoderConfig
from glore_jax.parallel import hosts, watch
from glore_jax.pipeline import Stage, StageContext
from glore_jax.records import Problem, Solution
from glore_jax.sampling import solutions
from glore_jax.stages import artifacts, recipes, rollout_parts, step_labels
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.training import checkpoints, resuming

ROOT = Path(__file__).parents[2]
PROBLEMS = [make_problem(0, "train", i, handmade.EVEN_WEIGHTS) for i in range(6)]


def config() -> ConfigDict:
    """The smoke configuration with everything a few."""
    made = configuration.load(f"{ROOT / 'configs' / 'arithmetic.py'}:smoke")
    with made.unlocked():
        made.sampling.update({"slots": 8, "sources": 4, "buckets": (320, 576), "max_new_tokens": 16})
        made.sft.train.update({"steps": 6, "rows": 4, "optimizer": "adamw", "checkpoint_seconds": 0})
        made.labels.update({"solved_only": False, "rollouts": 2, "wrong_per_problem": 2})
        made.update({"devices": 0, "train_dtype": "float32"})
    return made


def write_base(folder: Path) -> None:
    tokenizer = handmade.tokenizer()
    model, params = tiny.random_decoder(tokenizer.vocab_size)
    sizes = {name: getattr(model.config, name) for name in DecoderConfig.__dataclass_fields__}
    checkpoints.save_model(folder / artifacts.MODEL, {"decoder": params}, sizes)
    tokenizer.save(folder)


def write_problems(folder: Path) -> None:
    for split in artifacts.SPLITS:
        files.write_table(folder / f"{split}.parquet", PROBLEMS, Problem)


def write_traces(folder: Path) -> None:
    """Worked solutions: two that are right, and of each other problem two with a wrong last line."""
    rows = []
    for n, problem in enumerate(PROBLEMS):
        lines = problem.solution.split("\n")
        ends = lines[-1:] if n < 2 else ["#### 998", "#### 999"]
        rows += [
            handmade.solution([*lines[:-1], end], n < 2, f"{problem.id}/{k}", problem.id) for k, end in enumerate(ends)
        ]
    files.write_table(folder / "traces.parquet", rows, Solution)


def given(name: str, write: Callable[[Path], None]) -> Stage:
    """A stage that writes what is handed in."""

    def run(context: StageContext) -> dict[str, Any]:
        write(context.folder)
        return {"given": True}

    return Stage(name, (), run, "handed in", (), alone=True)


def sample(context: StageContext) -> dict[str, Any]:
    """Two solutions of every problem."""
    tokenizer = artifacts.read_tokenizer(context)
    engine = artifacts.read_engine(context, "expert_iteration", tokenizer)
    rows = artifacts.read_problems(context, "train")
    with artifacts.sampling(context, 2 * len(rows), "solutions", "samples") as recorded:
        found = solutions.sample(engine, tokenizer, rows, 2, 1.0, context.key(), *recorded)
    artifacts.write_table(context.folder / "samples.parquet", found, Solution)
    return {"samples": len(found)}


def stages() -> list[Stage]:
    real = {stage.name: stage for stage in recipes.GLORE}
    return [
        given("problems", write_problems),
        given("base", write_base),
        given("expert_iteration", write_base),
        given("traces", write_traces),
        Stage("samples", ("problems", "base", "expert_iteration"), sample, "sample", ("sampling",)),
        real["labels"],
        real["sft"],
    ]


def end_at(how: str, process: str, place: str, count: str) -> None:
    """Ends this process, if it is the one, at some place."""
    owner, name = {
        "joined": (jax.distributed, "initialize"),
        "rollouts": (step_labels.verifying, "collect"),
        "steps": (resuming.Checkpoints, "save"),
    }[place]
    work, done = getattr(owner, name), 0

    def work_and_end(*arguments: Any, **options: Any) -> Any:
        nonlocal done
        found = work(*arguments, **options)
        done += 1
        if done == int(count) and os.environ.get("GLORE_PROCESS", "0") == process:
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        return found

    setattr(owner, name, work_and_end)


def run(workdir: str, *end: str) -> None:
    rollout_parts.TRACES_A_PART = 1
    watch.LIMIT = 15.0
    if end:
        end_at(*end)
    cli.prepare_jax(config())
    jax.config.update("jax_num_cpu_devices", int(os.environ["DEVICES"]))
    count, index = (int(os.environ.get(name, n)) for n, name in ((1, "GLORE_PROCESSES"), (0, "GLORE_PROCESS")))
    with hosts.joined(os.environ.get("GLORE_COORDINATOR", ""), count, index):
        pipeline.run(config(), workdir, stages())


if __name__ == "__main__":
    run(*sys.argv[1:])
