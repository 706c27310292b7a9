"""The scripts in launch/, with stand-ins for the programs of clouds and clusters: `stand_in.sh` says what they do."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("gcloud", "xpk", "kubectl", "sbatch", "srun", "scontrol", "make", "python3", "pip")
# All else that the scripts call. No test sees the PATH of this machine: it may have a real gcloud.
TOOLS = ("bash", "env", "git", "sed", "dirname", "hostname", "mkdir", "cp", "rm", "cat", "sleep", "setsid", "tail")
TOOLS += ("wc", "uname", "getconf")
# What a shell would break at, were it not quoted.
GIVEN = ["--config=configs/arithmetic.py:smoke", "--workdir=my runs", '--config.base.path=it\'s "$HOME" & `x`; \\n*']
TPU, GKE = ("slice", "--zone=us-east5-b"), ("--cluster=c", "--workload=seed0")

# Says what it was given, and works until it is told to stop, or until a file beside it says otherwise.
GLORE = r"""#!/usr/bin/env bash
here=$(dirname "$0")
printf '%s\0' "$@" >"$here/given-${GLORE_PROCESS-0}"
echo "$GLORE_COORDINATOR $GLORE_PROCESSES $GLORE_PROCESS" >"$here/place-${GLORE_PROCESS-0}"
trap 'echo told to stop; exit 0' TERM
echo working
until [ -e "$here/done-${GLORE_PROCESS-0}" ] || [ "$1" = --help ]; do
  if [ -e "$here/broken-${GLORE_PROCESS-0}" ]; then exit 3; fi
  sleep 0.05
done
"""


class Place:
    """A checkout with the launchers, two hosts with homes of their own, and the stand-ins on the PATH."""

    def __init__(self, folder: Path):
        self.folder, self.root, self.hosts = folder, folder / "check out", folder / "hosts"
        self.log = folder / "log"
        shutil.copytree(ROOT / "launch", self.root / "launch")
        for home in (self.root, self.hosts / "0", self.hosts / "1"):
            home.mkdir(parents=True, exist_ok=True)
        self.stand_ins = folder / "bin"
        self.stand_ins.mkdir()
        for name in PROGRAMS:
            (self.stand_ins / name).symlink_to(Path(__file__).with_name("stand_in.sh"))
        for name in TOOLS:
            (self.stand_ins / name).symlink_to(shutil.which(name) or f"missing {name}")
        self.log.touch()
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith(("GIT_", "GLORE_"))}
        self.environment |= {
            "PATH": str(self.stand_ins),
            "STAND_IN_LOG": str(self.log),
            "STAND_IN_HOSTS": str(self.hosts),
            "STAND_IN_ACTS": "",
        }

    def command(self, script: str, *words: str) -> list[str]:
        return [str(self.root / "launch" / script), *words]

    def call(self, script: str, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        found = subprocess.run(
            self.command(script, *words),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (found.returncode == 0) == ok, found.stdout + found.stderr
        return found

    def start(self, script: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(script, *words), cwd=self.folder, env=self.environment, text=True)

    def acting(self) -> Place:
        self.environment["STAND_IN_ACTS"] = "yes"
        return self

    def glore(self, home: Path) -> Path:
        """Puts a glore of the tests into a home's .venv; returns its folder."""
        place = home / ".venv" / "bin"
        place.mkdir(parents=True)
        (place / "glore").write_text(GLORE)
        (place / "glore").chmod(0o755)
        return place

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for file in (*tmp_path.rglob("given-*"), *tmp_path.rglob("glore")):  # whatever a failed test left running ends
        for process in range(3):
            (file.parent / f"done-{process}").touch()


def until(true: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < 30, "it did not come to pass in 30 s"
        time.sleep(0.02)


def given(folder: Path, process: int = 0) -> list[str]:
    """The words that a process of the tests' glore was given, once it works."""
    path = folder / f"given-{process}"
    until(lambda: path.exists() and path.read_text().endswith("\0"))
    return path.read_text().split("\0")[:-1]


def repository(place: Place) -> None:
    """Makes the checkout a repository with one commit."""
    settings = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    for words in (("init", "--quiet"), ("add", "."), (*settings, "commit", "--quiet", "--message=one")):
        subprocess.run(["git", *words], cwd=place.root, env=place.environment, check=True)


def test_shellcheck_has_nothing_to_say():
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no shellcheck; the extra `test` brings it")
    scripts = [*sorted((ROOT / "launch").glob("*.sh")), Path(__file__).with_name("stand_in.sh")]
    assert len(scripts) > 6
    found = subprocess.run([program, *map(str, scripts)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout + found.stderr == ""


@pytest.mark.parametrize(
    ("script", "words", "expected"),
    [
        ("tpu_pod.sh", ("sync", *TPU), ["gcloud compute tpus tpu-vm scp", "gcloud compute tpus tpu-vm ssh"]),
        ("tpu_pod.sh", ("install", *TPU), ["gcloud compute tpus tpu-vm ssh"]),
        ("tpu_pod.sh", ("start", *TPU, "--", *GIVEN), ["gcloud compute tpus tpu-vm ssh"]),
        ("tpu_pod.sh", ("tail", *TPU, "--worker=3"), ["gcloud compute tpus tpu-vm ssh"]),
        ("tpu_pod.sh", ("status", *TPU), ["gcloud compute tpus tpu-vm ssh"]),
        ("tpu_pod.sh", ("stop", *TPU), ["gcloud compute tpus tpu-vm ssh"]),
        ("gke.sh", ("start", *GKE, "--tpu-type=v5litepod-16", "--", *GIVEN), ["xpk workload create"]),
        ("gke.sh", ("status", *GKE), ["xpk workload list"]),
        ("gke.sh", ("tail", *GKE), ["kubectl logs"]),
        ("gke.sh", ("stop", *GKE), ["xpk workload delete"]),
        ("slurm.sh", ("--nodes=2", "--time=1:00:00", "--", *GIVEN), ["sbatch"]),
        ("local.sh", ("--", *GIVEN), ["make"]),
    ],
)
def test_a_dry_run_prints_what_a_run_calls(place: Place, script: str, words: tuple[str, ...], expected: list[str]):
    repository(place)
    (place.glore(place.root) / "done-0").touch()
    shown = [line for line in place.call(script, "--dry-run", *words).stdout.splitlines() if line[0] != "#"]
    assert place.calls() == [] and not (place.root / "build").exists()
    place.call(script, *words)
    called = [line for line in shown if line.split()[0] in PROGRAMS]
    assert place.calls() == called
    assert [line.startswith(begin) for line, begin in zip(called, expected, strict=True)] == [True] * len(expected)
    for word in (word for word in words if word.startswith("--") and word != "--" and word not in GIVEN):
        assert all(shlex.split(line).count(word) == 1 for line in called if not line.startswith("kubectl"))


def test_a_slice_runs_from_sync_to_stop(place: Place):
    repository(place)
    place.acting()
    place.call("tpu_pod.sh", "sync", *TPU)
    (place.root / "launch" / "new.txt").write_text("not committed")
    homes = [place.hosts / name / "glore_jax" for name in "01"]
    assert [(home / "launch" / "host.sh").exists() for home in homes] == [True, True]
    again = place.call("tpu_pod.sh", "sync", *TPU)  # over what is there
    assert again.stdout.count("one\n") == 2
    folders = [place.glore(home) for home in homes]
    place.call("tpu_pod.sh", "install", *TPU)
    installed = [line for line in place.calls() if line.startswith("python3")]
    assert len(installed) == 6 and all("--python" in line for line in installed if "uv\\ " in line)

    assert place.call("tpu_pod.sh", "status", *TPU).stdout.count("never started") == 2
    started = place.call("tpu_pod.sh", "start", *TPU, "--", *GIVEN)
    assert started.stdout.count("running, process") == 2  # and the session that started it is over
    assert [given(folder) for folder in folders] == [["run", "--distributed", *GIVEN]] * 2
    refused = place.call("tpu_pod.sh", "start", *TPU, "--", *GIVEN, ok=False)
    assert "already running" in refused.stderr
    assert place.call("tpu_pod.sh", "status", *TPU).stdout.count("running, process") == 2
    stopped = place.call("tpu_pod.sh", "stop", *TPU)
    assert stopped.stdout.count("ended with status 143") == 2
    assert (homes[1] / "runs" / "host" / "log.txt").read_text() == "working\ntold to stop\n"

    for folder in folders:
        (folder / "done-0").touch()
    place.call("tpu_pod.sh", "start", *TPU, "--", *GIVEN)  # the same command goes on
    until(lambda: place.call("tpu_pod.sh", "status", *TPU).stdout.count("ended with status 0") == 2)
    (homes[0] / "runs" / "host" / "exit").unlink()
    assert "gone without a status" in place.call("tpu_pod.sh", "status", *TPU).stdout


def test_a_pod_of_gke_hears_that_it_has_to_stop(place: Place):
    place.acting()
    folder = place.glore(place.root)
    place.environment["PATH"] = f"{folder}:{place.environment['PATH']}"
    pod = place.start("gke.sh", "start", *GKE, "--tpu-type=v5litepod-16", "--", *GIVEN)
    assert given(folder) == ["run", "--distributed", *GIVEN]
    (xpk,) = subprocess.run(["pgrep", "-P", str(pod.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(xpk), signal.SIGTERM)
    assert pod.wait(30) == 143  # of those with which xpk starts a job again
    assert [line.split()[0] for line in place.calls()] == ["xpk", "pip"]


@pytest.mark.parametrize(
    ("end", "code", "requeued"), [("SIGTERM", 143, True), ("broken", 3, False), ("done", 0, False)]
)
def test_a_job_of_slurm_is_queued_again_where_it_was_told_to_stop(place: Place, end: str, code: int, requeued: bool):
    place.acting()
    folder = place.glore(place.root)
    job = place.start("slurm.sh", "--nodes=1", "--", *GIVEN)
    assert given(folder) == ["run", "--distributed", *GIVEN]
    if end == "SIGTERM":
        os.kill(int((place.hosts / "step").read_text()), signal.SIGTERM)  # Slurm tells the tasks, not srun
    else:
        (folder / f"{end}-0").touch()
    assert job.wait(30) == code
    assert [line.split()[0] for line in place.calls()] == ["sbatch", "srun"] + ["scontrol"] * requeued
    assert not requeued or place.calls()[-1] == "scontrol requeue 7"


def test_processes_on_this_machine_know_their_places(place: Place):
    folder = place.glore(place.root)
    run = place.start("local.sh", "--processes=3", "--port=9000", "--logs=some logs", "--", *GIVEN)
    assert [given(folder, process) for process in range(3)] == [["run", *GIVEN]] * 3
    for process in range(3):
        (folder / f"done-{process}").touch()
    assert run.wait(30) == 0
    assert [(folder / f"place-{i}").read_text() for i in range(3)] == [f"127.0.0.1:9000 3 {i}\n" for i in range(3)]
    assert (place.folder / "some logs" / "process-2.log").read_text() == "working\n"


@pytest.mark.parametrize("reason", ["one failed", "SIGTERM"])
def test_processes_on_this_machine_stop_together(place: Place, reason: str):
    folder = place.glore(place.root)
    run = place.start("local.sh", "--processes=2", "--", *GIVEN)
    assert [given(folder, process)[0] for process in range(2)] == ["run", "run"]
    if reason == "SIGTERM":
        run.send_signal(signal.SIGTERM)
    else:
        (folder / "broken-0").touch()
    assert run.wait(30) == (0 if reason == "SIGTERM" else 3)
    assert (place.folder / "runs" / "logs" / "process-1.log").read_text() == "working\ntold to stop\n"


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("local.sh", ("configs/arithmetic.py",), "unexpected configs/arithmetic.py"),
        ("local.sh", (), "expected -- and the options of `glore run`"),
        ("local.sh", ("--processes=two", "--", *GIVEN), "expected a number from 1 on"),
        ("tpu_pod.sh", ("start", *TPU), "expected -- and the options of `glore run`"),
        ("tpu_pod.sh", ("begin", *TPU), "no command begin"),
        ("tpu_pod.sh", ("start",), "expected COMMAND and TPU"),
        ("gke.sh", ("start", "--cluster=c", "--", *GIVEN), "--workload=NAME"),
        ("gke.sh", ("begin", *GKE), "no command begin"),
        ("slurm.sh", ("--nodes=2",), "expected -- and the options of `glore run`"),
    ],
)
def test_what_is_missing_is_told(place: Place, script: str, words: tuple[str, ...], message: str):
    refused = place.call(script, *words, ok=False)
    assert refused.returncode == 2 and message in refused.stderr
    assert place.calls() == []
    shown = place.call(script, "--help").stdout
    assert f"launch/{script} " in shown and "shellcheck" not in shown


@pytest.mark.parametrize(
    ("script", "words", "program"),
    [
        ("tpu_pod.sh", ("status", *TPU), "gcloud"),
        ("gke.sh", ("status", *GKE), "xpk"),
        ("gke.sh", ("tail", *GKE), "kubectl"),
        ("slurm.sh", ("--", *GIVEN), "sbatch"),
    ],
)
def test_a_missing_program_is_told(place: Place, script: str, words: tuple[str, ...], program: str):
    (place.stand_ins / program).unlink()
    refused = place.call(script, *words, ok=False)
    assert refused.returncode == 2 and f"no {program} on the PATH" in refused.stderr
    place.call(script, "--dry-run", *words)  # which needs none
