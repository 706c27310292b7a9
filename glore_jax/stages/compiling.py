"""`glore compile`: what a run takes of a slice of a TPU pod, said by the TPU compiler before a TPU is spent.

Nothing is downloaded, and neither weights nor problems are read where their sizes are known: what is compiled are the
steps that the stages run, of the shapes that the configuration says.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import rich
from ml_collections import ConfigDict
from rich.table import Table

from glore_jax.errors import InputError
from glore_jax.parallel import topologies
from glore_jax.parallel.roofline import ASSUMPTIONS
from glore_jax.progress import duration, number, say, size
from glore_jax.stages import checking, config_keys, counting, fitting, programs
from glore_jax.stages.programs import STAGES, TRAININGS, Compiled, Run

# Of the stages of a recipe, whose step theirs is.
_SAME = {"orm_balanced": "orm", "global_refiner": "refiner", "local_refiner": "refiner", "value_refiner": "refiner"}
_COUNTED = (
    "problems, traces and rollouts at most: drafts are as long as sampling.max_new_tokens, and no stage stops early",
    "slots are always full, and nobody waits for the host",
)
_ASSUMED = f"the problems or the tokenizer are not here: {counting.STEPS} steps a solution are assumed"


def report(config: ConfigDict, stage: str, topology: str, as_json: bool) -> int:
    """Compiles the step of a stage, or of all, and prints what it takes.

    Returns:
      0; 1 where a step has no room.

    Raises:
      InputError: no such slice, or what `glore check` refuses too.
    """
    slice_ = topologies.parse(topology)
    chosen = _chosen(config, stage)
    run = Run(config, slice_, topologies.devices(slice_))
    given = checking.given(config)
    work = {item.stage: item for item in counting.of_stages(config, given)}
    found = {name: _compiled(run, name, work, quiet=as_json) for name in _different(run, chosen)}
    by_stage = {name: found[next(n for n in found if run.kind(n) == run.kind(name))] for name in chosen}
    full = next((name for name, made in found.items() if made.refusal), None)
    change = fitting.cheapest(config, slice_, full) if full else None
    rows = experiment(run, by_stage, list(work.values())) if set(chosen) == set(STAGES) and not full else []
    counted = *_COUNTED, *(() if given.measured else (_ASSUMED,))
    made = as_dict(run, by_stage, rows, counting.rollouts(config, given), counted)
    if full:
        made["change"] = None if change is None else change.as_dict()
    if as_json:
        print(json.dumps(made, indent=1))
    else:
        _print(run, made)
        if full:
            say(f"{full} does not fit: {found[full].refusal}")
            say(f"what fits, and costs least: {change.text}" if change else "nothing that was tried fits")
    return 1 if full else 0


def fingerprints(config: ConfigDict, stage: str, topology: str, as_json: bool) -> int:
    """Prints a hash of each compiled step; of the devices here, where no topology is given.

    Returns:
      0; 1 where a step has no room.
    """
    slice_ = topologies.parse(topology) if topology else None
    chosen, found = _chosen(config, stage), {}
    run = Run(config, slice_, topologies.devices(slice_) if slice_ else None)
    for name in chosen:
        made = programs.compile(run, run.program(name))
        if made.memory is None:
            say(f"{name} does not fit: {made.refusal}")
            return 1
        found[name] = made.fingerprint
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        for name, mark in found.items():
            say(f"{mark}  {name}")
    return 0


def _chosen(config: Any, stage: str) -> Sequence[str]:
    if config.get("recipe", "") != "glore":
        raise InputError(f"recipe={config.get('recipe', '')!r}: `glore compile` knows the stages of the recipe glore")
    config_keys.check(config)
    return STAGES if stage == "all" else (stage,)


def _different(run: Run, chosen: Sequence[str]) -> list[str]:
    """One stage of each kind, so that nothing is compiled twice."""
    return list({run.kind(name): name for name in reversed(chosen)}.values())[::-1]


def _compiled(run: Run, name: str, work: dict[str, counting.Work], quiet: bool) -> Compiled:
    """The program of a stage; its training is as long as that stage of the run."""
    stage = next((stage for stage in work if _SAME.get(stage, stage) == name), name)
    steps = work[stage].steps if stage in work else 0
    made = programs.compile(run, run.program(name, max(1, steps)))
    if not quiet:
        say(f"{name}: compiled in {duration(made.seconds)}")
    return made


def experiment(run: Run, compiled: dict[str, Compiled], work: Sequence[counting.Work]) -> list[dict[str, Any]]:
    """Seconds and chip-hours of each stage of the run, at least, of the steps that it takes at most."""
    assert run.slice is not None
    rates = {name: made.tokens_per_second or math.inf for name, made in compiled.items()}
    each = compiled["prefill"].program.tokens / run.config.sampling.sources  # tokens of a source
    rows = []
    for item in work:
        training = item.trained / rates[name] if (name := _SAME.get(item.stage, item.stage)) in TRAININGS else 0.0
        sampling = item.sources * each / rates["prefill"] + item.written / rates["decode"]
        hours = (training + sampling) * run.slice.chips / 3600
        rows.append(dataclasses.asdict(item) | {"seconds": training + sampling, "chip_hours": hours})
    return rows


def as_dict(
    run: Run, compiled: dict[str, Compiled], rows: list[dict[str, Any]], rollouts: int, counted: Sequence[str]
) -> dict[str, Any]:
    """What is printed, as JSON has it; bytes on each device, seconds of a step."""
    assert run.slice is not None
    chip = {name: getattr(run.slice.chip, name) for name in ("memory", "flops", "memory_rate", "link_rate")}
    return {
        "slice": {"name": run.slice.name, "topology": run.slice.topology, "chips": run.slice.chips, "chip": chip},
        "mesh": dict(run.place.mesh.shape),
        "stages": {name: of_stage(made) for name, made in compiled.items()},
        "experiment": {"stages": rows, "chip_hours": sum(row["chip_hours"] for row in rows) if rows else None}
        | {"rollouts": rollouts},
        "assumptions": [*ASSUMPTIONS, *counted],
    }


def of_stage(made: Compiled) -> dict[str, Any]:
    program, roof = made.program, made.roofline
    found: dict[str, Any] = {
        "fits": not made.refusal,
        "refusal": made.refusal,
        "compile_seconds": round(made.seconds, 1),
    }
    found |= {"flops": program.flops, "tokens": program.tokens}
    found["memory"] = made.memory and dataclasses.asdict(made.memory) | {"beside": program.beside}
    found["moved"] = made.moved and dataclasses.asdict(made.moved)
    found["roofline"] = roof and dataclasses.asdict(roof) | {"seconds": roof.seconds, "bound": roof.bound}
    return found | {"tokens_per_second": made.tokens_per_second, "fingerprint": made.fingerprint}


def step_time(seconds: float) -> str:
    """To three digits.

    >>> step_time(0.0123), step_time(1.2249)
    ('12.3 ms', '1.22 s')
    """
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def _print(run: Run, made: dict[str, Any]) -> None:
    slice_ = made["slice"]
    memory = slice_["chip"]["memory"]
    mesh = ", ".join(f"{axis} {count}" for axis, count in made["mesh"].items() if count > 1) or "one device"
    say(f"{slice_['name']}: {slice_['chips']} chips of {size(memory)}; mesh: {mesh}")
    columns = "stage", "arguments", "temporaries", "peak", "of memory", "TFLOP", "moved", "step", "bound by", "tokens/s"
    table = Table(*columns, title="a step, on each device")
    for name, row in made["stages"].items():
        if row["memory"] is None:
            table.add_row(name, *[""] * 3, "does not fit")
            continue
        held = row["memory"]["peak"] + row["memory"]["beside"]
        sizes = (size(row["memory"][part]) for part in ("arguments", "temporaries", "peak"))
        moved = "\n".join(f"{kind} {size(count)}" for kind, count in row["moved"]["bytes"].items())
        roof = row["roofline"]
        table.add_row(
            name, *sizes, f"{held / memory:.0%}", f"{row['flops'] / slice_['chips'] / 1e12:.3g}", moved or "nothing",
            step_time(roof["seconds"]), roof["bound"], number(round(row["tokens_per_second"])),
        )  # fmt: skip
    rich.get_console().print(table)
    if rows := made["experiment"]["stages"]:
        table = Table("stage", "samples", "tokens written", "steps", "time", "chip-hours", title="the run")
        for row in rows:
            counts = (number(row[key]) if row[key] else "" for key in ("samples", "written", "steps"))
            table.add_row(row["stage"], *counts, duration(row["seconds"]), f"{row['chip_hours']:.3g}")
        rich.get_console().print(table)
        say(f"chip-hours: {number(made['experiment']['chip_hours'])}")
    say(f"rollouts: {number(made['experiment']['rollouts'])} at most")
    for line in made["assumptions"]:
        say(f"- {line}")
