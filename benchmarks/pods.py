"""What the steps of a run take of slices of TPU pods, row by row into docs/pods.md; no TPU is needed.

python benchmarks/pods.py
python benchmarks/pods.py --models 13b --slices v5e-256 --stages sft decode

Needs the extra `tpu-compile`. Compiles what `glore compile` compiles, for Llama 2 of three sizes, and one small step on
1 to 1,024 chips. Each row is kept in docs/pods.json when it is done, and compiled once: a run that was stopped goes on
where it stopped, and the page is written anew after each row. --again compiles those that are chosen once more.
A row takes one to ten minutes on two cores. Prints JSON: how many rows there are, and how many are missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from glore_jax import configuration, files
from glore_jax.errors import InputError
from glore_jax.parallel import topologies
from glore_jax.parallel.roofline import ASSUMPTIONS
from glore_jax.progress import number, say, size
from glore_jax.stages import compiling, programs
from glore_jax.stages.programs import TRAININGS, Run

ROOT = Path(__file__).parents[1]
ROWS, PAGE = ROOT / "docs" / "pods.json", ROOT / "docs" / "pods.md"
MODELS = ("13b", "7b", "70b")
SLICES = ("v5e-256", "v5p-64", "v5e-64", "v6e-64", "v5p-128", "v5e-16", "v5p-16")
STAGES = ("sft", "decode", "orm", "prefill", "refiner")  # expert iteration trains as sft does, the sorm as the orm
GROWING = ("v5p:1x1x1", "v5p:2x2x1", "v5p:2x2x4", "v5p:4x4x4", "v5p:4x8x8", "v5p:8x8x16")
BATCH = 256  # rows of a training step
TENSOR = 8  # chips that share one copy of the weights in sampling: as many as a model of 70B has key heads
STUDENT = "student"  # the small model of the embedded task, of which a step on each chip has four rows
HEAD = ("model", "slice", "stage", "arguments", "temporaries", "of memory", "sent", "step", "bound by", "tokens/s")


def settings(model: str, slice_: topologies.Slice, stage: str) -> dict[str, Any]:
    """Keys of the configuration that a row changes: how much is computed at once, and what is split."""
    if model == STUDENT:
        return {"sft.train.optimizer": "adamw", "sft.train.rows": 4 * slice_.chips}
    if stage in TRAININGS:
        return {"sharding.preset": "fsdp", f"{stage}.train.rows": BATCH}
    # The vocabulary has thirteen marks more, and its rows do not divide.
    split = {"sharding.preset": "tensor", "sharding.tensor": TENSOR, "sharding.rules": "vocab=none,"}
    return split | {"sampling.sources": max(8, slice_.chips // TENSOR)}


def cases(models: list[str], slices: list[str], stages: list[str]) -> Iterator[tuple[str, str, str]]:
    yield from itertools.product(models, slices, stages)
    yield from ((STUDENT, topology, "sft") for topology in GROWING)


def row(model: str, name: str, stage: str) -> dict[str, Any]:
    """Of one compilation; of one that the configuration does not allow, why."""
    slice_ = topologies.parse(name)
    file = "arithmetic.py" if model == STUDENT else f"gsm8k_llama2_{model}.py"
    changes = settings(model, slice_, stage)
    words = [f"{configuration.PREFIX}{key}={value}" for key, value in changes.items()]
    config = configuration.load(str(ROOT / "configs" / file), words)
    about: dict[str, Any] = {"model": model, "slice": name, "chips": slice_.chips, "stage": stage, "keys": changes}
    try:
        run = Run(config, slice_, topologies.devices(slice_))
        made = programs.compile(run, run.program(stage))
    except InputError as error:
        return about | {"error": str(error)}
    return about | {"mesh": dict(run.place.mesh.shape)} | compiling.of_stage(made)


def cells(found: dict[str, Any]) -> list[str]:
    """Of a row of the table."""
    about = [found["model"], found["slice"], found["stage"]]
    if "error" in found:
        return [*about, f"not possible: {found['error']}", *[""] * 6]
    if found["memory"] is None:
        return [*about, f"does not fit: {found['refusal']}", *[""] * 6]
    parts, roof = found["memory"], found["roofline"]
    chip = topologies.parse(found["slice"]).chip
    share = f"{(parts['peak'] + parts['beside']) / chip.memory:.0%}"
    share += "" if found["fits"] else ", does not fit"
    sent = size(sum(found["moved"]["sent"].values()))
    times = f"{roof['seconds'] * 1e3:.3g} ms", roof["bound"], number(round(found["tokens_per_second"]))
    return [*about, size(parts["arguments"]), size(parts["temporaries"]), share, sent, *times]


def table(rows: list[list[str]]) -> str:
    lines = [HEAD, ["---"] * 3 + ["---:"] * (len(HEAD) - 3), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(found: dict[str, dict[str, Any]]) -> str:
    """The page, of the rows that there are; the others are named as what they are."""
    growing = [cells(found[key]) for name in GROWING if (key := f"{STUDENT} {name} sft") in found]
    done, missing = [], []
    for model, name in itertools.product(MODELS, SLICES):
        there = [found[key] for stage in STAGES if (key := f"{model} {name} {stage}") in found]
        done += map(cells, there)
        if left := [stage for stage in STAGES if stage not in {row["stage"] for row in there}]:
            missing.append(f"- {model} on {name}: {', '.join(left)}")
    return PROSE.format(
        table=table(done) if done else "None yet.",
        missing="\n".join(missing) or "None.",
        growing=table(growing) if growing else "None yet.",
        assumptions="\n".join(f"- {line}" for line in ASSUMPTIONS),
        batch=BATCH,
        tensor=TENSOR,
    )


PROSE = """\
# Runs on TPU pods, before there is a pod

`python benchmarks/pods.py` writes this page. Every row was compiled by the TPU compiler for the slice that it names; no
TPU was there, and nothing was run. `glore compile` says the same of any configuration
(`glore compile --help`), and which change makes a step fit that does not.

Models are Llama 2, of the configurations `configs/gsm8k_llama2_*.py`. Training has {batch} rows a step, and models
split over all chips (`sharding.preset=fsdp`). In sampling {tensor} chips share the weights; a step of prefill reads as
many sources as there are such groups of chips, at least eight, and one of decoding is a chunk of 16 for all slots that
there is memory for. Bytes are on each chip: `arguments` and `temporaries` as the compiler counts them, `of memory` the
most that is taken at one time, with what stays beside it, as a share of what the chip has; `sent` what a chip sends in
a step. `step` and `tokens/s` are a roofline, the best that there can be, not a measurement:

{assumptions}

{table}

Not compiled yet:

{missing}

## From one chip to 1,024

The step of the embedded task's student, four rows on each chip, models whole on each: what a chip holds and computes
stays the same.

{growing}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--slices", nargs="*", choices=SLICES, default=list(SLICES))
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--again", action="store_true", help="compile rows that there are too")
    parser.add_argument("--page", action="store_true", help="compile nothing, write the page")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # a TPU that is there need not be taken
    jax.config.update("jax_enable_compilation_cache", False)  # it would keep what it cannot read without a TPU
    found: dict[str, dict[str, Any]] = files.read_json(ROWS) if ROWS.exists() else {}
    chosen = [] if options.page else list(cases(options.models, options.slices, options.stages))
    for case in chosen:
        key = " ".join(case)
        if key in found and not options.again:
            continue
        found[key] = row(*case)
        say(f"{key}: {found[key].get('error') or found[key]['refusal'] or 'compiled'}")
        files.write_json(ROWS, found)
        files.write_text(PAGE, page(found))
    files.write_text(PAGE, page(found))
    every = set(map(" ".join, cases(list(MODELS), list(SLICES), list(STAGES))))
    print(json.dumps({"rows": len(found), "missing": len(every - found.keys())}))


if __name__ == "__main__":
    main()
