"""What the README and the pages of docs/ promise: commands, examples, links, and names of functions."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from glore_jax import configuration, stages
from glore_jax.commands import parse
from glore_jax.tasks import jsonl
from glore_jax.tasks.arithmetic import make_problem, phrases

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
# A newcomer types these too; they are the shell's own business.
PLAIN = ("source .venv/bin/activate", "tail -F glore-JOB.log")
# Programs of others, and the options of theirs that the pages use, as their reference pages have them. What no machine
# without a cloud can run is at least spelled as it is there.
OTHERS = {
    "gcloud services enable": (),
    "gcloud compute tpus queued-resources create": (
        *("--node-id", "--zone", "--accelerator-type", "--runtime-version", "--spot"),
    ),
    "gcloud compute tpus queued-resources describe": ("--zone",),
    "gcloud compute tpus queued-resources delete": ("--zone", "--force"),
    "gcloud compute tpus tpu-vm ssh": ("--zone", "--worker", "--command"),
    "gcloud filestore instances create": ("--zone", "--tier", "--file-share", "--network"),
    "xpk cluster create": (
        *("--cluster", "--zone", "--tpu-type", "--num-slices", "--spot", "--enable-gcpfilestore-csi-driver"),
    ),
    "xpk cluster delete": ("--cluster", "--zone"),
    "xpk storage create": (
        *("--cluster", "--zone", "--type", "--size", "--tier", "--mount-point", "--readonly", "--auto-mount"),
    ),
    "squeue": ("--me",),
    "scancel": (),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """(where, command) of every line that a page or a configuration tells the reader to type."""
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            found += [(page.name, line) for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    for path in sorted((ROOT / "configs").glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines = [line for line in text.splitlines() if line.startswith("glore ")]
        assert lines, f"{path.name}: its docstring gives no command"
        found += [(path.name, line) for line in lines]
    return found


def check_glore(words: list[str]) -> None:
    options, overrides = parse(words)
    if options.command in ("check", "compile", "label"):
        configuration.load(options.config, overrides)
    if options.command in ("run", "train"):
        config = configuration.load(options.config, overrides)
        names = {stage.name for stage in stages.of(config)}
        assert {options.only, options.start_from} - {None} <= names


def check_make(words: list[str]) -> None:
    for word in words:
        variable, equals, _ = word.partition("=")
        if equals:
            assert re.search(rf"^{variable} \?=", MAKEFILE, re.MULTILINE), f"the Makefile takes no {variable}"
        else:
            assert word in TARGETS, f"the Makefile has no target {word}"


def check_launcher(words: list[str]) -> None:
    """A dry run prints a command of a cloud or a cluster, and what it gives to `glore run` can be run."""
    shown = subprocess.run([words[0], "--dry-run", *words[1:]], capture_output=True, text=True, check=False, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if line[0] != "#"]
    if "--" in words:
        check_glore(["run", *words[words.index("--") + 1 :]])


def check_other(words: list[str]) -> None:
    (name,) = (name for name in OTHERS if words[: len(name.split())] == name.split())
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options <= set(OTHERS[name]), f"{name} has no {options - set(OTHERS[name])}"


@pytest.mark.parametrize(("where", "command"), commands())
def test_every_command_can_be_typed(where: str, command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command, comments=True) or [""]
    if program == "glore":
        check_glore(words)
    elif program == "make":
        check_make(words)
    elif program.startswith("launch/"):
        check_launcher([program, *words])
    elif program in {name.split()[0] for name in OTHERS}:
        check_other([program, *words])
    else:
        assert command.strip() in PLAIN, f"{where}: no test knows how to check {command!r}"


def test_what_is_launched_fits_the_sixteen_chips_that_it_is_launched_on():
    """Of slices and clusters: batches and slots that would be refused there, at its price."""
    found = [shlex.split(line) for where, line in commands() if where == "launching.md"]
    given = [words[words.index("--") + 1 :] for words in found if "--" in words and words[0] != "launch/local.sh"]
    assert len(given) == 3 and all("16" in line for _, line in commands() if "--accelerator-type" in line)
    code = (
        "import json, sys, jax; jax.config.update('jax_num_cpu_devices', 16)\n"
        "from glore_jax import commands, configuration; from glore_jax.stages import checking\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    options, overrides = commands.parse(['run', *words])\n"
        "    checking.check_settings(configuration.load(options.config, overrides))\n"
    )
    command = [sys.executable, "-c", code, json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_running_text_exist(page: Path):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`((?:make|glore) [^`]+)`", text):
        program, *words = shlex.split(command)
        if program == "make":
            check_make(words)
        elif not words[0].startswith("-"):
            assert words[0] in (
                "run",
                "train",
                "label",
                "label-report",
                "check",
                "compile",
                "stages",
                "report",
                "score",
                "evaluate",
                "harness",
                "convert",
            ), command


def test_the_readme_starts_with_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = blocks(ROOT / "README.md", "bash")[0]
    assert text.index(first) < 40
    assert [shlex.split(line, comments=True) for line in first.splitlines()] == [["make", "run"], ["make", "test"]]


def test_the_example_problems_are_read(tmp_path: Path):
    (block,) = blocks(ROOT / "README.md", "json")
    (tmp_path / "problems.jsonl").write_text(block, encoding="utf-8")
    problems = jsonl.read(tmp_path / "problems.jsonl")
    assert [bool(problem.solution) for problem in problems] == [True, False]


def test_the_example_of_the_task_is_what_is_generated():
    page = ROOT / "docs" / "task.md"
    text = page.read_text(encoding="utf-8")
    problem = make_problem(0, "train", 17, (1,) * 7)
    quoted = " ".join(line.removeprefix("> ") for line in text.splitlines() if line.startswith("> "))
    assert quoted == problem.question
    assert [block.rstrip("\n") for block in blocks(page, "text")] == [problem.solution]
    assert f"There are {phrases.count()} sentence patterns" in text


def claims_of(page: Path) -> dict[str, str]:
    """What a page of `docs/results/` says of each claim, by the claim's name: "VALUE (LOW to HIGH) VERDICT"."""
    line = re.compile(r"^- \d\. (?!beside)(.+): (\S+) (?:points|%) \((.+); bound \S+\): (.+)$", re.MULTILINE)
    found = line.findall(page.read_text(encoding="utf-8"))
    return {name: f"{value} ({span}) {verdict}" for name, value, span, verdict in found}


def test_the_table_of_claims_is_that_of_the_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("<!-- results:begin -->")[1].split("<!-- results:end -->")[0]
    rows = re.findall(
        r"^\| (.+) \| (.+) \| (.+) \|$", block.replace(", open", " (interval includes the bound)"), re.MULTILINE
    )
    pages = ROOT / "docs" / "results"
    full, default = claims_of(pages / "full.md"), claims_of(pages / "default.md")
    assert len(full) == 15
    assert {name: cells for name, *cells in rows[2:]} == {name: [full[name], default[name]] for name in full}
    # What the text beside the table says stands in one of the pages too, whatever it says it of.
    told = " ".join((pages / name).read_text(encoding="utf-8") for name in ("full.md", "default.md"))
    text = block[block.rindex(rows[-1][-1]) :]
    assert {number for number in re.findall(r"\d+\.\d", text) if number not in re.findall(r"\d+\.\d", told)} == set()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [t for t in targets if not t.startswith("https://") and not (page.parent / t).exists()]
    assert not broken


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods of a Python file."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_functions_that_a_page_names_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    missing = []
    for file, name in re.findall(r"`([\w/]+\.py):(\w+)`", text):
        if file.startswith("configs/"):
            configuration.load(str(ROOT / f"{file}:{name}"))  # a variant that is not there is an error by itself
            continue
        path = ROOT / "glore_jax" / file
        if not path.is_file() or name not in names_in(path):
            missing.append(f"{file}:{name}")
    assert not missing, f"{page.name} names what is not there: {missing}"
    if page.name == "method.md":
        assert len(re.findall(r"`[\w/]+\.py:\w+`", text)) > 30  # it is a map, so it holds names


def test_the_house_has_every_room():
    page = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    package = ROOT / "glore_jax"
    files = [path.name for path in package.glob("*.py") if path.name != "__init__.py"]
    rooms = [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    assert files and rooms
    assert [name for name in [*files, *rooms] if f"`{name}`" not in page] == []
    config = configuration.load(str(ROOT / "configs" / "arithmetic.py"))
    assert [stage.name for stage in stages.of(config) if not re.search(rf"\b{stage.name}\b", page)] == []


def test_the_makefile_skips_pythons_that_do_not_work(tmp_path: Path):
    """A name on the path may be a shim that fails, or too old: neither is taken, and a poor choice is named."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, body in {
        "python3.13": "exit 127",  # a shim whose version is not active
        "python3.12": "exit 1",  # works, but is too old or lacks venv
        "python3.11": 'case "$1" in -c) exit 0 ;; --version) echo Python 3.11 ;; *) exit 3 ;; esac',
        "python3": "exit 1",
        "python": "exit 1",
    }.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_folder / name).chmod(0o755)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "setup.py").touch()

    def install(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        environment["PATH"] = f"{bin_folder}:/usr/bin:/bin"
        command = ["make", *words, "install"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    taken = install()
    assert "Making .venv with Python 3.11" in taken.stdout
    assert taken.returncode == 2  # the stand-in makes no environment, so nothing is marked as installed
    assert not (tmp_path / ".venv" / ".installed").exists()
    refused = install(f"PYTHON={bin_folder / 'python3.12'}")
    assert refused.returncode == 2
    assert "python3.12 is not a working Python 3.11, 3.12 or 3.13 with venv" in refused.stderr
    (bin_folder / "python3.11").write_text("#!/bin/sh\nexit 1\n")
    nothing = install()
    assert nothing.returncode == 2
    assert "none of python3.13" in nothing.stderr
