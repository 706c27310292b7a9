"""`glore <command>`: what each command does; `commands.py` has their words."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import rich
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from glore_jax import commands, configuration, final_answers, goodput, pipeline, progress, workfolder
from glore_jax.errors import InputError
from glore_jax.interrupts import Interrupted
from glore_jax.parallel import hosts

_STATE_COLOURS = {"done": "green", "partial": "yellow", "stale": "yellow", "damaged": "red", "missing": "dim"}


def _watching(options: argparse.Namespace, compiled: Callable[[], float]) -> pipeline.Observed:
    profile = None
    if options.profile is not None:
        first, _, last = options.profile.partition(":")
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            raise InputError(f"--profile={options.profile}: expected the first and the last step, as 100:105")
        profile = int(first), int(last)
    return pipeline.Observed(profile, options.wandb, compiled)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `glore`.

    Returns:
      0, also where SIGTERM stopped the run; 1 where `glore compile` found no room for a step; 2 where the input is at
      fault; 130 where Ctrl-C stopped it.
    """
    try:
        options, overrides = commands.parse(sys.argv[1:] if argv is None else argv)
        if options.command in ("run", "train"):
            _run(options, overrides)
        elif options.command == "label":
            _label(options, overrides)
        elif options.command == "label-report":
            from glore_jax import stages

            stages.print_labels(options.workdir)
        elif options.command == "check":
            _check(options, overrides)
        elif options.command == "compile":
            return _compile(options, overrides)
        elif options.command == "stages":
            _print_stages(options.workdir)
        elif options.command == "report":
            from glore_jax import stages

            stages.report(options.dirs, options.output)
        elif options.command == "score":
            _score(options)
        elif options.command == "harness":
            _harness(options)
        elif options.command == "convert":
            _convert(options)
        else:
            from glore_jax.evaluation import benchmarks

            benchmarks.evaluate(options.benchmark, options.input, options.predictions, options.output)
    except InputError as error:
        Console(stderr=True).print(Text(f"error: {error}", style="red"), soft_wrap=True)
        return 2
    except Interrupted as stop:
        return stop.exit_code
    except KeyboardInterrupt:  # before or after the run proper
        return 130
    return 0


def _label(options: argparse.Namespace, overrides: list[str]) -> None:
    given = {"base.path": options.model, "task.solutions": options.input}
    options.workdir, options.only, options.start_from = options.output, None, None
    _run(options, [*(f"{configuration.PREFIX}{key}={value}" for key, value in given.items()), *overrides])


def _run(options: argparse.Namespace, overrides: list[str]) -> None:
    config = configuration.load(options.config, overrides)
    prepare_jax(config)
    from glore_jax import stages  # here: it imports all of JAX, and a mistyped option should not wait for that
    from glore_jax.parallel import compiling

    with (
        hosts.joined(options.coordinator, options.processes, options.process, options.distributed),
        compiling.counted() as compiled,
    ):
        stages.check_settings(config)
        stages.announce(config)
        pipeline.run(
            config,
            options.workdir,
            stages.of(config),
            only=options.only,
            start_from=options.start_from,
            report=stages.print_report,
            observed=_watching(options, compiled),
        )
    if late := final_answers.overdue():
        progress.say(f"{late} pairs of answers in LaTeX took too long to compare, and count as different")


def _score(options: argparse.Namespace) -> None:
    prepare_jax(ConfigDict())
    from glore_jax.stages import scoring

    scoring.score(options.model, options.input, options.output, options.threshold, options.tokenizer)


def _harness(options: argparse.Namespace) -> None:
    prepare_jax(ConfigDict())
    try:
        from glore_jax.stages import harness
    except ModuleNotFoundError as error:
        raise InputError(
            f"`glore harness` needs lm-evaluation-harness ({error}); install it with: pip install 'glore_jax[lm-eval]' "
            "(in a checkout: .venv/bin/python -m pip install -e '.[lm-eval]')"
        ) from error
    sizes = {"max_length": options.max_length, "batch_size": options.batch}
    given = {name: value for name, value in sizes.items() if value is not None}
    if options.run is None:
        if options.draft:
            raise InputError("--draft is of a run; give --run=DIR, or leave it out")
        lm = harness.LanguageModel(options.model, **given)
    else:
        if given or options.fewshot is not None:
            raise InputError("--fewshot, --max-length and --batch are of --model; a run is given the plain question")
        lm, options.fewshot = harness.System(options.run, options.draft), 0
    names = [name for name in options.tasks.split(",") if name]
    harness.evaluate(lm, names, options.include, options.fewshot, options.limit, options.output)


def _convert(options: argparse.Namespace) -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing is computed, and an accelerator may have less memory
    from glore_jax.stages import converting

    converting.convert(options.source, options.target)


def _check(options: argparse.Namespace, overrides: list[str]) -> None:
    config = configuration.load(options.config, overrides)
    prepare_jax(config)
    from glore_jax import stages

    stages.check(config)


def _compile(options: argparse.Namespace, overrides: list[str]) -> int:
    if not options.topology and not options.fingerprint:
        raise InputError("--topology is missing: which slice of a TPU pod to compile for, as --topology=v5e:16x16")
    config = configuration.load(options.config, overrides)
    prepare_jax(config)
    import jax

    jax.config.update("jax_enable_compilation_cache", False)  # what is kept for other machines cannot be read here
    if options.topology:
        jax.config.update("jax_platforms", "cpu")  # a TPU that is there need not be taken
    from glore_jax.stages import compiling

    what = compiling.fingerprints if options.fingerprint else compiling.report
    return what(config, options.stage, options.topology, options.json)


def prepare_jax(config: ConfigDict) -> None:
    """Compiled programs are kept on disk for the next run; `config.devices` sets how many CPU devices JAX shows."""
    import jax

    named = os.environ.get("GLORE_CACHE") or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    cache = named or Path.home() / ".cache" / "glore_jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if config.get("devices"):
        jax.config.update("jax_num_cpu_devices", config.devices)


def _print_stages(workdir: Path) -> None:
    config = ConfigDict(workfolder.read_config(workdir))
    from glore_jax import stages

    table = Table("stage", "state", "reads", "time", "size", "made", title=str(workdir), title_justify="left")
    for item in pipeline.states(config, workdir, stages.of(config)):
        made = item.manifest
        table.add_row(
            item.stage.name,
            Text(item.state, style=_STATE_COLOURS[item.state]),
            ", ".join(item.stage.inputs),
            progress.duration(made["seconds"]) if made else "",
            progress.size(workfolder.size(made)) if made else "",
            ", ".join(f"{key} {progress.number(value)}" for key, value in made["counts"].items()) if made else "",
        )
    rich.get_console().print(table)
    progress.say(goodput.line(goodput.of_stages(workdir)))
