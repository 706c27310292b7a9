"""The words of `glore`: its commands, their options, and what `--help` says of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from glore_jax import configuration
from glore_jax.errors import InputError

_EXAMPLES = """\
examples:
  glore run --config=configs/arithmetic.py --workdir=runs/seed0        the whole pipeline
  glore run --config=configs/arithmetic.py:smoke --workdir=runs/smoke  the same, small
  glore train --config=configs/traces_value.py --workdir=runs/values --config.task.when=A --config.task.where=B
                                                                       value models from judged solutions
  glore check --config=configs/arithmetic.py                           what it would take
  glore compile --config=configs/gsm8k_llama2_7b.py:pod --topology=v5e:8x8  what it takes of a TPU pod, without one
  glore stages --workdir=runs/seed0                                    what is done, and what is not
  glore report runs/seed0 runs/seed1 runs/seed2                        several seeds in one table
  glore score --model=runs/seed0/sorm --input=solutions.jsonl --output=values.jsonl
                                                                       step values of other people's solutions
  glore evaluate --benchmark=processbench --input=math.json --predictions=values.jsonl
                                                                       how well they find the first error
  glore label --config=configs/label.py --model=FOLDER --input=solutions.jsonl --output=labels
                                                                       step labels for anyone's solutions
  glore label-report labels                                            what they are worth
  glore harness --run=runs/seed0 --tasks=my_task --include=my_tasks    tasks of lm-evaluation-harness
  glore convert models/Llama-2-7b-hf models/llama2_7b_orbax            a model for other JAX code, and back

`glore COMMAND --help` says more about each."""

_RUN = """\
Runs every stage that is not done yet. Stop it when you like (Ctrl-C, SIGTERM, even kill -9) and type the
same command again: it goes on where it stopped. A finished run typed again only prints its table.
After SIGTERM a training saves its step; the last line is "preempted" and the exit code 0. After Ctrl-C it is 130.

examples:
  glore run --config=configs/arithmetic.py --workdir=runs/seed0
  glore run --config=configs/arithmetic.py:smoke --workdir=runs/smoke
      the variant `smoke` of the same file
  glore run --config=configs/arithmetic.py --workdir=runs/seed1 --config.seed=1
      any key of the configuration can be set; tuples as 1,2,3
  glore run --config=configs/jsonl.py --workdir=runs/mine --config.task.train=problems.jsonl
      your own problems
  glore run --config=configs/arithmetic.py --workdir=runs/seed0 --only=report
      that stage alone, again; --from=STAGE runs it and every later one again

A folder belongs to one configuration; for another choose another --workdir.
Compiled programs are kept in ~/.cache/glore_jax, or in $GLORE_CACHE."""

_TRAIN = """\
Trains an outcome and a stepwise outcome reward model on solutions that others wrote and judged, and measures both on
questions that were kept from them. It is `glore run` under another name: the configuration says which stages there are,
what was stopped goes on, and --config.KEY=VALUE sets any key.

task.when names files that say whether the final answer is right, task.where files that say which step is the first
false one; several with commas between, one file can serve both. `glore score --help` has the formats.

examples:
  glore train --config=configs/traces_value.py --workdir=runs/values \\
      --config.task.when=when.jsonl.gz --config.task.where=where.jsonl.gz
  glore train --config=configs/traces_value.py --workdir=runs/mine --config.base.path=FOLDER \\
      --config.task.when=mine.jsonl --config.task.where=mine.jsonl
      from a base model of Hugging Face
  glore score --model=runs/values/sorm --input=solutions.jsonl --output=values.jsonl
      what they say about other solutions"""

_LABEL = """\
Labels the steps of solutions that anybody wrote: a model of yours continues every prefix, and a step is positive where
one continuation comes to the right answer and uses what the prefix computed (paper, section 3.2). It is `glore run`
under another name: --output is the work folder, what was stopped goes on, and --config.KEY=VALUE sets any key.

Solutions are in the formats of `glore score --help`, each with `answer` too, the right one to its question, and, unless
it ends with a line '#### ANSWER', `answer_correct`. The model writes its answers as '#### ANSWER'.

OUTPUT/export holds labels.jsonl (with rollouts counted), math_shepherd.jsonl and trl.jsonl (stepwise supervision).

examples:
  glore label --config=configs/label.py --model=FOLDER --input=solutions.jsonl --output=labels
      from a model of Hugging Face
  glore label --config=configs/label.py --model=runs/arithmetic/expert_iteration --input=drafts.jsonl --output=labels \\
      --config.labels.rollouts=16 --config.labels.search=all
      from the student of a run; 16 rollouts of every prefix, not only where they can change a label"""

_LABEL_REPORT = """\
Prints what the step labels of a run, or of `glore label`, are worth: positive rates by prefix length before and after
each post-processing step, agreement with the first false step where it is known, how many positives so many rollouts
miss, and some labelled solutions to read.

examples:
  glore label-report runs/seed0
  glore label-report labels"""

_CHECK = """\
Says what a run would take, without running it: parameters, steps, tokens, rollouts and memory, from the problems, the
tokenizer and the shapes of the base model, whose weights are not read. Fails on what cannot work, with the key to
change. --config.devices=8 counts for eight devices on a machine that has none.

examples:
  glore check --config=configs/arithmetic.py
  glore check --config=configs/gsm8k_llama2_7b.py --config.base.path=FOLDER"""

_COMPILE = """\
Compiles the steps of a run for a slice of a TPU pod, which need not be there, and says what they take of it: bytes on
each device, operations, bytes that collectives move, the least time of a step, and the chip-hours of the whole run. Of
a published model neither the folder nor the weights are needed, and no network. Exits with 1 where a step has no room,
and says which change gives it some. Needs the extra `tpu-compile`; a step of a large model takes minutes.

--fingerprint prints a hash of each compiled step instead: the same before and after a change to the code that changes
nothing of what is computed. Without --topology it is of the devices here.

examples:
  glore compile --config=configs/gsm8k_llama2_13b.py:pod --topology=v5e:8x8
  glore compile --config=configs/gsm8k_llama2_13b.py:pod --stage=decode --topology=v5p-64 --json
  glore compile --config=configs/gsm8k_llama2_7b.py --stage=sft --topology=v5e-64 \\
      --config.sharding.preset=fsdp --config.sft.train.rows=64
  glore compile --config=configs/arithmetic.py --stage=sft --fingerprint"""

_STAGES = """\
Lists the stages of a work folder: done; partial (begun); missing; stale (made by another version, or from
inputs that have changed); damaged (files missing or changed).

example:
  glore stages --workdir=runs/seed0"""

_REPORT = """\
Prints the table of finished runs; of several, pooled, with an interval over seeds.

examples:
  glore report runs/seed0
  glore report runs/seed0 runs/seed1 runs/seed2 --output=results.md"""

_SCORE = """\
Reads solutions and writes what a value model says about them: a row each with id, values (one a step),
first_error (the first step under the threshold, counted from 0; -1 where none is) and final_value.

Solutions are JSON lines, a JSON list or Parquet, gzipped or not, with id, question and steps (a list of texts); or in
the format of ProcessBench, PRM800K, Math-Shepherd or BIG-Bench Mistake, which their columns tell.

examples:
  glore score --model=runs/arithmetic/sorm --input=solutions.jsonl --output=values.jsonl
  glore score --model=runs/arithmetic/orm --input=solutions.parquet --output=values.parquet --threshold=0.4
  glore score --model=FOLDER --tokenizer=OTHER_FOLDER --input=math.json.gz --output=values.jsonl
      a Hugging Face folder of a token classification model, and a tokenizer that does not lie in it"""

_EVALUATE = """\
Measures step values, as `glore score` writes them, against what is known of the solutions.
processbench, where: is the first false step found (error accuracy, clean accuracy, F1)? By subset and generator.
when: does the final value tell right answers from wrong ones (AUROC, accuracy, calibration)? By generator.
Thresholds are tuned on three tenths of the questions; the figures at them, and at 0.5, are on the others.

examples:
  glore evaluate --benchmark=processbench --input=math.json.gz --predictions=values.jsonl
  glore evaluate --benchmark=when --input=solutions.jsonl --predictions=values.jsonl --output=when.json"""

_HARNESS = """\
Runs tasks of lm-evaluation-harness (extra `lm-eval`) and prints its table. --model is a language model: a Hugging Face
folder, or a stage of a run (base, sft, expert_iteration). --run is a finished run with the refinement system around its
student, for tasks whose prompt is the plain question; --draft leaves the system out and keeps the way of asking.

examples:
  glore harness --model=FOLDER --tasks=gsm8k,arc_easy --fewshot=5
  glore harness --model=runs/arithmetic/expert_iteration --tasks=my_task --include=my_tasks --limit=100
  glore harness --run=runs/arithmetic --tasks=my_task --include=my_tasks --output=system.json
  glore harness --run=runs/arithmetic --draft --tasks=my_task --include=my_tasks --output=draft.json"""

_CONVERT = """\
Writes the model in SRC as a folder of the other kind: one of Hugging Face (config.json and safetensors) as an Orbax
checkpoint, an Orbax checkpoint that this command made as a Hugging Face folder, and so the folder of a stage of a run.
What SRC is, is told by what it holds. Tensors stay as they are to the last bit; the tokenizer goes along. DST is new or
empty; it appears once all is written. The memory taken is about that of the parameters.

examples:
  glore convert models/Llama-2-7b-hf models/llama2_7b_orbax
  glore convert models/llama2_7b_orbax models/llama2_7b_again
  glore convert runs/gsm8k/sorm models/gsm8k_sorm
      a value model of a run, for token classification; value.surprise and prefix_lm must be off"""

BENCHMARKS = ("processbench", "where", "when")  # evaluation/benchmarks.py has what each measures
COMPILED = ("sft", "expert_iteration", "orm", "sorm", "refiner", "prefill", "decode")  # as stages/programs.py has them


class _Parser(argparse.ArgumentParser):
    """Complains the way the rest of the package does."""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` shows examples")


def _run(parser: _Parser) -> None:
    _add_config(parser)
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="where everything is written")
    parser.add_argument("--only", metavar="STAGE", help="run just this stage, again if it is done")
    parser.add_argument("--from", dest="start_from", metavar="STAGE", help="run this stage and all later ones again")
    _add_processes(parser)
    _add_watching(parser)


def _label(parser: _Parser) -> None:
    _add_config(parser)
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of the model that continues them")
    parser.add_argument("--input", required=True, metavar="FILE,...", help="solutions")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where everything is written")
    _add_processes(parser)
    _add_watching(parser)


def _label_report(parser: _Parser) -> None:
    parser.add_argument("workdir", type=Path, metavar="DIR", help="work folder of `glore run` or `glore label`")


def _compile(parser: _Parser) -> None:
    _add_config(parser)
    parser.add_argument("--stage", default="all", choices=(*COMPILED, "all"), help="whose step is compiled (all)")
    parser.add_argument("--topology", default="", metavar="NAME", help="v5e:16x16 or v5e-256, and so on")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--fingerprint", action="store_true", help="print a hash of each compiled step")


def _stages(parser: _Parser) -> None:
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="the work folder")


def _report(parser: _Parser) -> None:
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="work folders, e.g. one a seed")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="also write a results page (Markdown)")


def _score(parser: _Parser) -> None:
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="folder of a value model")
    parser.add_argument("--input", required=True, type=Path, metavar="FILE", help="solutions")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="a .jsonl or .parquet file to write")
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="X", help="a step of a lower value is an error (0.5)"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="PLACE", help="its folder or file, if not the model's own")


def _evaluate(parser: _Parser) -> None:
    parser.add_argument("--benchmark", required=True, choices=BENCHMARKS, help="what is measured")
    parser.add_argument("--input", required=True, type=Path, metavar="FILE", help="solutions with verdicts")
    parser.add_argument("--predictions", required=True, type=Path, metavar="FILE", help="what `glore score` wrote")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the figures as JSON")


def _harness(parser: _Parser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--model", type=Path, metavar="DIR", help="folder of a language model")
    who.add_argument("--run", type=Path, metavar="DIR", help="work folder of a finished run")
    parser.add_argument("--tasks", required=True, metavar="A,B", help="tasks of the harness, or YAML files")
    parser.add_argument("--include", type=Path, metavar="DIR", help="folder with tasks of your own")
    parser.add_argument("--draft", action="store_true", help="of a run: the student's draft, nothing refined")
    parser.add_argument("--fewshot", type=int, metavar="N", help="examples before each question (as the task has it)")
    parser.add_argument("--limit", type=int, metavar="N", help="rows of each task (all)")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens the model reads (as its config.json says)")
    parser.add_argument("--batch", type=int, metavar="N", help="rows computed together on each device (16)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the results as JSON")


def _convert(parser: _Parser) -> None:
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of a model")
    parser.add_argument("target", type=Path, metavar="DST", help="folder to make")


def _add_config(parser: _Parser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="Python file with get_config()")


def _add_watching(parser: _Parser) -> None:
    """The options that say what is recorded beside the artifacts."""
    group = parser.add_argument_group("watching", "changes no result; DIR/metrics holds what is recorded")
    group.add_argument("--profile", metavar="A:B", help="trace steps A to B of each training, for xprof")
    group.add_argument("--wandb", default="", metavar="PROJECT", help="metrics to Weights & Biases too (extra `wandb`)")


def _add_processes(parser: _Parser) -> None:
    """The options of a job of several processes; see `glore_jax.parallel.hosts`."""
    group = parser.add_argument_group("several processes", "start it on every host with the same words, and these")
    given = os.environ.get
    group.add_argument(
        "--coordinator",
        default=given("GLORE_COORDINATOR"),
        metavar="HOST:PORT",
        help="where process 0 is reached ($GLORE_COORDINATOR)",
    )
    for name, metavar, what in (
        ("processes", "N", "how many there are"),
        ("process", "I", "which one this is, from 0"),
    ):
        variable = f"GLORE_{name.upper()}"
        default, text = given(variable), f"{what} (${variable})"
        group.add_argument(f"--{name}", type=int, default=default, metavar=metavar, help=text)
    group.add_argument(
        "--distributed",
        action="store_true",
        default=given("GLORE_DISTRIBUTED") == "1",
        help="let JAX find these out: TPU pods, Slurm, Open MPI ($GLORE_DISTRIBUTED=1)",
    )


# Of each command its line in `glore --help`, what its own `--help` says, and what adds its options.
_COMMANDS: dict[str, tuple[str, str, Callable[[_Parser], None]]] = {
    "run": ("run the pipeline, or go on with it", _RUN, _run),
    "train": ("the same; value models from judged solutions", _TRAIN, _run),
    "label": ("step labels for anyone's solutions", _LABEL, _label),
    "label-report": ("what step labels are worth", _LABEL_REPORT, _label_report),
    "check": ("say what a run would take, and what is wrong with it", _CHECK, _add_config),
    "compile": ("what a run takes of a TPU pod, without one", _COMPILE, _compile),
    "stages": ("list the stages of a work folder", _STAGES, _stages),
    "report": ("print the table of finished runs", _REPORT, _report),
    "score": ("step values of other people's solutions", _SCORE, _score),
    "evaluate": ("measure step values on a benchmark", _EVALUATE, _evaluate),
    "harness": ("tasks of lm-evaluation-harness", _HARNESS, _harness),
    "convert": ("models between Hugging Face and Orbax", _CONVERT, _convert),
}
_CONFIGURED = ("run", "train", "check", "compile", "label")  # they take --config.KEY=VALUE


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and those of its commands by name."""
    description = "GLoRe in JAX: stepwise outcome reward models, global and local refiners, end to end."
    parser = _Parser(prog="glore", description=description, epilog=_EXAMPLES)
    made = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands = {}
    for name, (line, text, add_options) in _COMMANDS.items():
        commands[name] = made.add_parser(name, help=line, description=text)
        add_options(commands[name])
    return parser, commands


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options and configuration overrides of a command line.

    Raises:
      InputError: an unknown command or option (with the nearest known one), or a missing one.
    """
    parser, commands = _parsers()
    words = [word for word in argv if not word.startswith("-")]
    if words and argv[0] == words[0] and words[0] not in commands:
        raise InputError(f"no command {words[0]}; {configuration.nearest(words[0], commands)}")
    options, rest = parser.parse_known_args(argv)
    overrides = [word for word in rest if options.command in _CONFIGURED and word.startswith(configuration.PREFIX)]
    unknown = [word for word in rest if word not in overrides]
    if unknown:
        name = unknown[0].partition("=")[0]
        actions = commands[options.command]._option_string_actions
        if name.startswith("-"):
            advice = configuration.nearest(name, actions)
        elif any("=" not in word for word in overrides):
            advice = f"a key takes its value after `=`, as in {overrides[-1]}={name}"
        else:
            advice = f"every option of `glore {options.command}` begins with --"
        raise InputError(f"`glore {options.command}` does not know {name}; {advice}")
    return options, overrides
