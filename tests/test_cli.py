"""The command line: options, errors, exit codes and signals, over toy stages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import glore_jax
from glore_jax import cli, commands
from glore_jax.evaluation import benchmarks

_TOY = Path(__file__).with_name("toy_recipe.py")
CONFIG = """
import runpy
get_config = runpy.run_path({toy!r})["toy_config"]
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config" / "toy.py"
    path.parent.mkdir()
    path.write_text(CONFIG.format(toy=str(_TOY)))
    return str(path)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy stages in place of the real ones."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("toy_recipe", _TOY)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy_recipe", module)
    spec.loader.exec_module(module)
    stages = module.recipe()
    monkeypatch.setitem(sys.modules, "glore_jax.stages", stages)
    monkeypatch.setattr(glore_jax, "stages", stages, raising=False)
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)
    monkeypatch.setenv("COLUMNS", "140")


@pytest.mark.usefixtures("toy")
def test_run_stages_report(tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]):
    workdir = tmp_path / "w"
    assert cli.main(["run", f"--config={config}", f"--workdir={workdir}", "--config.numbers.count=3"]) == 0
    assert capsys.readouterr().out.endswith("REPORT 5\n")
    assert json.loads((workdir / "config.json").read_text())["numbers"]["count"] == 3
    assert cli.main(["train", "--config", config, "--workdir", str(workdir), "--config.numbers.count=3"]) == 0
    assert capsys.readouterr().out == "REPORT 5\n"

    (workdir / "total").rename(workdir / "total.partial")
    assert cli.main(["stages", f"--workdir={workdir}"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"squares +│ done +│ numbers +│ \d\.\d s +│ \d+ B +│ count 3, largest 4", table)
    assert re.search(r"total +│ partial +│ numbers, squares", table)

    assert cli.main(["report", str(workdir), str(workdir)]) == 0
    assert capsys.readouterr().out == "POOLED 2 None\n"
    assert cli.main(["report", "a", "b", "--output=page.md"]) == 0
    assert capsys.readouterr().out == "POOLED 2 page.md\n"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rn"], "no command rn; did you mean run?"),
        ([], "the following arguments are required: COMMAND; `glore --help` shows examples"),
        (["run", "--config=C"], "the following arguments are required: --workdir; `glore run --help`"),
        (["run", "--config=C", "--workdir=W", "--form=total"], "does not know --form; did you mean --from"),
        (["run", "--config=C", "--workdir=W", "--onl=total"], "does not know --onl; did you mean --only"),
        (["run", "--config=C", "--workdir=W", "extra"], "does not know extra; every option"),
        (
            ["run", "--config=C", "--workdir=W", "--config.seed", "3"],
            "takes its value after `=`, as in --config.seed=3",
        ),
        (["run", "--config=C", "--workdir=W", "--config.sed=3"], "--config.sed: no such key in the configuration; did"),
        (["run", "--config=C", "--workdir=W", "--config.seed=x"], "expected a whole number"),
        (["run", "--config=C", "--workdir=W", "--only=totl"], "--only=totl: no such stage; did you mean total?"),
        (["run", "--config=C", "--workdir=W", "--from=zzz"], "no such stage; there are: numbers, squares, total"),
        (["run", "--config=Cx", "--workdir=W"], "did you mean toy.py?"),
        (["stages", "--workdir=W", "--config.seed=3"], "`glore stages` does not know --config.seed; "),
        (["stages", "--workdir=W"], "not a work folder"),
        (["report"], "the following arguments are required: DIR"),
        (["score", "--model=W"], "the following arguments are required: --input, --output; `glore score --help`"),
        (["score", "--model=W", "--input=W", "--output=W", "--treshold=1"], "did you mean --threshold"),
        (["score", "--model=W", "--input=W", "--output=W", "--threshold=x"], "--threshold: invalid float value: 'x'"),
        (["harness", "--tasks=t"], "one of the arguments --model --run is required; `glore harness --help` shows"),
        (["harness", "--tasks=t", "--model=m", "--run=r"], "argument --run: not allowed with argument --model"),
        (["convert", "a"], "the following arguments are required: DST; `glore convert --help` shows examples"),
        (["convert", "a", "b", "c"], "`glore convert` does not know c; every option of `glore convert` begins with --"),
        (["evaluate", "--benchmark=where", "--input=W"], "the following arguments are required: --predictions"),
        (["evaluate", "--benchmark=gsm8k", "--input=W", "--predictions=W"], "invalid choice: 'gsm8k' (choose from"),
        (["evaluate", "--benchmark=when", "--input=W", "--predictions=W"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    places = {
        "--config=C": f"--config={config}",
        "--config=Cx": f"--config={config}x",
        "--workdir=W": f"--workdir={tmp_path}/w",
    }
    assert cli.main([places.get(word, word) for word in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["train"], ["check"], ["stages"], ["report"], ["score"], ["evaluate"], ["harness"], ["convert"]],
)
def test_help_teaches_by_example(command: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert re.search(r"examples?:\n  glore ", out)
    if command:
        assert f"  glore {command[0]} " in out


def test_train_is_run():
    words = ["--config=C", "--workdir=W", "--only=orm", "--config.seed=1"]
    (run, same), (train, overrides) = commands.parse(["run", *words]), commands.parse(["train", *words])
    assert vars(train) == vars(run) | {"command": "train"}
    assert overrides == same == ["--config.seed=1"]


def test_options_of_score_and_evaluate():
    words = ["score", "--model=m", "--input=i", "--output=o"]
    options, overrides = commands.parse(words)
    assert vars(options) == {
        "command": "score", "model": Path("m"), "input": Path("i"), "output": Path("o"), "threshold": 0.5,
        "tokenizer": None,
    }  # fmt: skip
    assert overrides == []
    assert commands.parse([*words, "--threshold=0.3", "--tokenizer=t"])[0].threshold == 0.3
    for benchmark in commands.BENCHMARKS:
        options, _ = commands.parse(["evaluate", f"--benchmark={benchmark}", "--input=i", "--predictions=p"])
        assert (options.benchmark, options.output) == (benchmark, None)
    assert set(commands.BENCHMARKS) == set(benchmarks.MODULES)


def test_the_harness_is_asked_for_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "glore_jax.stages.harness", raising=False)
    assert cli.main(["harness", "--model=m", "--tasks=t"]) == 2
    assert "needs lm-evaluation-harness (import of lm_eval halted" in (shown := capsys.readouterr().err)
    assert "pip install 'glore_jax[lm-eval]'" in shown


def _glore(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(_TOY), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, config: str, number: int, code: int):
    arguments = ["run", f"--config={config}", f"--workdir={tmp_path / 'w'}"]
    with _glore(arguments, TOY_SLEEP="0.2") as process:
        state = tmp_path / "w" / "squares.partial" / "checkpoint" / "state.json"
        deadline = time.monotonic() + 30
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert err == ""
    assert "stopped in stage squares; what is finished is kept. To go on, type the same command again." in out
    assert out.endswith("\npreempted\n") == (number == signal.SIGTERM)
    with _glore(arguments) as again:
        out, err = again.communicate(timeout=30)
    assert again.returncode == 0, err
    assert "[1/3] numbers" not in out
    assert "[2/3] squares: raise to a power (goes on where it stopped)" in out
    assert out.endswith("REPORT 14\n")


def test_python_m_is_glore(tmp_path: Path):
    command = [sys.executable, "-m", "glore_jax", "stages", f"--workdir={tmp_path}"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, cwd=Path(cli.__file__).parents[1]
    )
    # The real stages are imported only once a work folder has been found.
    assert done.returncode == 2
    assert "not a work folder" in done.stderr


def test_compiled_programs_are_kept_and_cpu_devices_set(tmp_path: Path):
    code = (
        "from glore_jax import cli; from ml_collections import ConfigDict; import jax\n"
        "cli.prepare_jax(ConfigDict({'devices': 3}))\n"
        "print(jax.device_count(), jax.jit(lambda x: x + 1)(1))"
    )
    environment = os.environ | {"GLORE_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 2\n"
    assert any((tmp_path / "cache").iterdir())
