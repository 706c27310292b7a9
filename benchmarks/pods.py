"""What the steps of a run take of slices of TPU pods, row by row into docs/pods.md; no TPU is needed.

python benchmarks/pods.py
python benchmarks/pods.py --models 13b --slices v5e-256 --stages sft decode

Needs the extra `tpu-compile`. Plans what `glore compile` compiles, for Llama 2 of three sizes, and one small step on
1 to 1,024 chips: the TPU compiler works until it has assigned memory (`glore_jax/parallel/planning.py`), each row in a
process that ends then. Each row is kept in docs/pods.json when it is done, and made once: a run that was stopped goes
on where it stopped, and the page is written anew after each row. --again makes those that are chosen once more.
A row takes a quarter of a minute to one minute of processor time. Prints JSON: how many rows there are, and how many
are missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from glore_jax import configuration, files
from glore_jax.errors import InputError
from glore_jax.parallel import planning, topologies
from glore_jax.parallel.roofline import ASSUMPTIONS
from glore_jax.progress import number, say, size
from glore_jax.stages import compiling, fitting, programs
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
    """Of one program; of one that the configuration does not allow, why; of one without room, what changes that."""
    slice_ = topologies.parse(name)
    file = "arithmetic.py" if model == STUDENT else f"gsm8k_llama2_{model}.py"
    changes = settings(model, slice_, stage)
    words = [f"{configuration.PREFIX}{key}={value}" for key, value in changes.items()]
    config = configuration.load(str(ROOT / "configs" / file), words)
    about: dict[str, Any] = {"model": model, "slice": name, "chips": slice_.chips, "stage": stage, "keys": changes}
    try:
        run = Run(config, slice_, topologies.devices(slice_))
        made = programs.compile(run, run.program(stage), planning.plan)
    except InputError as error:
        return about | {"error": str(error)}
    about |= {"mesh": dict(run.place.mesh.shape)} | compiling.of_stage(made)
    del about["fingerprint"]  # of a plan it is another than that of `glore compile`
    if made.refusal:
        change = fitting.cheapest(config, slice_, stage, planning.plan)
        about["change"] = change and change.as_dict()
    return about


def in_a_process(case: tuple[str, str, str]) -> dict[str, Any]:
    """The row, made in a process of its own."""
    words = [sys.executable, __file__, "--row", *case]
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)


def cells(found: dict[str, Any]) -> list[str]:
    """Of a row of the table."""
    about = [found["model"], found["slice"], found["stage"]]
    if "error" in found:
        return [*about, "not possible", *[""] * 6]
    if found["memory"] is None:
        return [*about, "does not fit", *[""] * 6]
    parts, roof = found["memory"], found["roofline"]
    chip = topologies.parse(found["slice"]).chip
    share = f"{(parts['peak'] + parts['beside']) / chip.memory:.0%}"
    share += "" if found["fits"] else ", does not fit"
    sent = size(sum(found["moved"]["sent"].values()))
    times = compiling.step_time(roof["seconds"]), roof["bound"], number(round(found["tokens_per_second"]))
    return [*about, size(parts["arguments"]), size(parts["temporaries"]), share, sent, *times]


def reason(found: dict[str, Any]) -> str:
    """Why there is no step, or no room for it, and what helps."""
    about = f"- {found['model']} on {found['slice']}, {found['stage']}: {found.get('error') or found['refusal']}"
    if "error" in found:
        return about
    change = found["change"]
    return f"{about}; fits with `{change['typed']}`" if change else f"{about}; nothing that was tried fits"


def table(rows: list[list[str]]) -> str:
    lines = [HEAD, ["---"] * 3 + ["---:"] * (len(HEAD) - 3), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(found: dict[str, dict[str, Any]]) -> str:
    """The page, of the rows that there are; the others are named as what they are."""
    without = [row for row in found.values() if "error" in row or row["refusal"]]
    growing = [cells(found[key]) for name in GROWING if (key := f"{STUDENT} {name} sft") in found]
    done, missing = [], []
    for model, name in itertools.product(MODELS, SLICES):
        there = [found[key] for stage in STAGES if (key := f"{model} {name} {stage}") in found]
        done += map(cells, there)
        if left := [stage for stage in STAGES if stage not in {row["stage"] for row in there}]:
            missing.append(f"- {model} on {name}: {', '.join(left)}")
    return PROSE.format(
        table=table(done) if done else "None yet.",
        without="\n".join(map(reason, without)) or "All do.",
        missing="\n".join(missing) or "None.",
        growing=table(growing) if growing else "None yet.",
        assumptions="\n".join(f"- {line}" for line in ASSUMPTIONS),
        batch=BATCH,
        tensor=TENSOR,
    )


PROSE = """\
# Runs on TPU pods, before there is a pod

`python benchmarks/pods.py` writes this page. Every row is what the TPU compiler made of a step for the slice that it
names, up to the point where memory is assigned (`glore_jax/parallel/planning.py`): no machine code was made, no TPU was
there, and nothing was run. `glore compile` compiles the steps of any configuration to their end
(`glore compile --help`), and says which change makes one fit that does not.

Models are Llama 2, of the configurations `configs/gsm8k_llama2_*.py`. Training has {batch} rows a step, and models
split over all chips (`sharding.preset=fsdp`). In sampling {tensor} chips share the weights; a step of prefill reads as
many sources as there are such groups of chips, at least eight, and one of decoding is a chunk of 16 for all slots that
there is memory for. Bytes are on each chip: `arguments` and `temporaries` as the compiler counts them, `of memory` the
most that is taken at one time, with what stays beside it, as a share of what the chip has; `sent` what a chip sends in
a step. `step` and `tokens/s` are a roofline, the best that there can be, not a measurement:

{assumptions}

{table}

What does not fit, and the cheapest change that was found to fit:

{without}

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
    parser.add_argument("--again", action="store_true", help="make rows that there are too")
    parser.add_argument("--page", action="store_true", help="make no row, write the page")
    parser.add_argument("--jobs", type=int, default=1, help="rows that are made at once; each takes up to 4 GB")
    parser.add_argument("--row", nargs=3, metavar=("MODEL", "SLICE", "STAGE"), help="print one row as JSON")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # a TPU that is there need not be taken
    jax.config.update("jax_enable_compilation_cache", False)  # it would keep what it cannot read without a TPU
    if options.row:
        print(json.dumps(row(*options.row)), flush=True)
        os._exit(0)  # the compiler works on
    found: dict[str, dict[str, Any]] = files.read_json(ROWS) if ROWS.exists() else {}
    chosen = [] if options.page else list(cases(options.models, options.slices, options.stages))
    chosen = [case for case in chosen if options.again or " ".join(case) not in found]
    with ThreadPoolExecutor(options.jobs) as pool:
        for case, made in zip(chosen, pool.map(in_a_process, chosen), strict=True):
            found[" ".join(case)] = made
            say(f"{' '.join(case)}: {made.get('error') or made['refusal'] or 'fits'}")
            files.write_json(ROWS, found)
            files.write_text(PAGE, page(found))
    files.write_text(PAGE, page(found))
    every = set(map(" ".join, cases(list(MODELS), list(SLICES), list(STAGES))))
    print(json.dumps({"rows": len(found), "missing": len(every - found.keys())}))


if __name__ == "__main__":
    main()
