"""The whole pipeline, small, as a user runs it: from an empty folder, again, in parts, damaged, killed."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import smoke_run

from glore_jax import cli, decisions, files, goodput, rankers, stages
from glore_jax.records import Case
from glore_jax.stages import walk

NAMES = [stage.name for stage in stages.recipes.GLORE]
ROWS = {
    "sft_accuracy", "student_accuracy", "student_pass_at_3", "orm_step_accuracy", "sorm_step_accuracy",
    "orm_final_accuracy", "sorm_final_accuracy", "orm_final_auroc", "sorm_final_auroc", "orm_first_error_f1",
    "sorm_first_error_f1", "sorm_label_accuracy", "global_fix_rate", "local_fix_rate", "local_fix_rate_oracle_critique",
    "union_fix_rate", "refine_all_global_accuracy", "refine_all_local_accuracy", "gated_global_accuracy",
    "gated_local_accuracy", "best_of_3_accuracy", "majority_of_3_accuracy", "system_accuracy",
    "system_oracle_rerank_accuracy", "harm_rate", "orm_step_accuracy_tuned", "sorm_step_accuracy_tuned",
    "orm_step_auroc", "sorm_step_auroc",
}  # fmt: skip
# What the paper reports and the report prints beside it; the paper gives no other figure.
PAPER = {
    "student_accuracy": 0.53, "system_accuracy": 0.65, "orm_step_accuracy": 0.73, "sorm_step_accuracy": 0.81,
    "sorm_label_accuracy": 0.94,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Finished:
    """Attributes: workdir, out (what the run printed)."""

    workdir: Path
    out: str


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run, shared by the tests that look at it."""
    workdir = tmp_path_factory.mktemp("smoke") / "run"
    done = smoke_run.call(smoke_run.command(workdir))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stderr == ""
    return Finished(workdir, done.stdout)


def stamps(workdir: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file but the lock."""
    paths = [p for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(workdir)): (p.stat().st_size, p.stat().st_mtime_ns) for p in paths}


def results(workdir: Path) -> dict[str, bytes]:
    """Bytes of what stages hand on: tables, models, thresholds, metrics. (Manifests and round.json hold rates.)"""
    paths = [p for p in workdir.rglob("*") if p.suffix in (".parquet", ".safetensors", ".json", ".model")]
    paths = [p for p in paths if p.relative_to(workdir).parts[0] != goodput.METRICS]
    return {str(p.relative_to(workdir)): p.read_bytes() for p in paths if p.name not in ("manifest.json", "round.json")}


def test_every_stage_runs_and_says_what_it_made(smoke: Finished):
    for number, name in enumerate(NAMES, 1):
        assert re.search(rf"^\[{number}/{len(NAMES)}\] {name}: .+\n", smoke.out, re.MULTILINE), name
        counts = json.loads((smoke.workdir / name / "manifest.json").read_text())["counts"]
        assert counts, name
        assert all(f" {key} " in smoke.out for key in counts)
    for key in ("positive", "dev_accuracy", "train_pass_rate", "label_accuracy", "tokens_per_second", "pairs"):
        assert key in smoke.out
    assert f"all {len(NAMES)} stages are done; this run took" in smoke.out
    line = goodput.line(goodput.of_stages(smoke.workdir))
    assert f"\n{line}\n" in smoke.out and all(f" {kind} " in line for kind in ("steps", "sampling", "compile"))
    page = (smoke.workdir / "report" / "index.html").read_text()
    assert re.search(r"goodput \d+\.\d % of .+ in stages: steps ", page)  # of the stages before it
    assert sorted(p.name for p in smoke.workdir.iterdir() if p.is_dir()) == sorted([*NAMES, goodput.METRICS])


def test_the_system_answers_anybody_as_it_did_on_test(smoke: Finished):
    cases = files.read_table(smoke.workdir / "test" / "cases.parquet", Case)
    margin = files.read_json(smoke.workdir / "tuning" / "thresholds.json")["rank_margin"]
    found = walk.answers_to(walk.of_finished(smoke.workdir), [case.problem.question for case in cases])
    expected = [decisions.system(case, margin) for case in cases]
    assert [c.solution.tokens for c in found] == [c.solution.tokens for c in expected]
    assert any(c != case.draft for c, case in zip(expected, cases, strict=True))


def test_metrics_have_every_row(smoke: Finished):
    rows = json.loads((smoke.workdir / "report" / "metrics.json").read_text())["rows"]
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert set(names) >= ROWS
    for row in rows:
        assert set(row) == {"name", "value", "low", "high", "count", "denominator", "paper", "definition"}
        assert row["definition"].endswith(".")
        if row["value"] is not None:
            assert row["low"] <= row["value"] <= row["high"], row["name"]
    by_name = {row["name"]: row for row in rows}
    assert {name: by_name[name]["paper"] for name in PAPER} == PAPER
    assert by_name["student_accuracy"]["denominator"] == 32


def test_only_samples_that_best_of_three_chooses_from_are_scored(smoke: Finished):
    for case in files.read_table(smoke.workdir / "test" / "cases.parquet", Case):
        assert [len(sample.values) for sample in case.samples] == [3, 3, 3, 0]


def test_the_same_solution_has_the_same_values(smoke: Finished):
    """A rewrite that is its draft ties with it to the last bit; the reranker counts on that."""
    alike = 0
    for case in files.read_table(smoke.workdir / "test" / "cases.parquet", Case):
        values: dict[tuple, tuple] = {}
        for found in (case.draft, *case.samples, *case.refinements.values()):
            for name, steps in found.values.items():
                alike += (name, found.solution.tokens) in values
                assert values.setdefault((name, found.solution.tokens), steps) == steps
    assert alike > 50


@pytest.mark.slow
def test_the_options_are_compared_on_copies(smoke: Finished, tmp_path: Path):
    before, page = stamps(smoke.workdir), tmp_path / "ablations.md"
    script = Path(__file__).parents[2] / "benchmarks" / "ablations.py"
    command = [sys.executable, script, smoke.workdir, f"--copies={tmp_path / 'copies'}", f"--output={page}"]
    done = smoke_run.call([str(word) for word in command])
    assert done.returncode == 0, done.stderr[-3000:]
    assert stamps(smoke.workdir) == before
    rows = json.loads(done.stdout.splitlines()[-1])
    assert {"whether any rollout is right (the paper's)", *rankers.RANKERS} < set(rows)
    assert rows["orm"]["system_accuracy"]["gain"] == 0
    assert len(list((tmp_path / "copies").iterdir())) == 3
    assert page.read_text() in done.stdout
    for name, changes in (("share", "sorm_target-share"), ("more", "labels_boundary_rollouts-8")):
        copy = next((tmp_path / "copies").glob(f"*{changes}"))
        assert (copy / "sorm" / "model.safetensors").read_bytes() != (
            smoke.workdir / "sorm" / "model.safetensors"
        ).read_bytes(), name


def test_the_table_and_the_page(smoke: Finished):
    page = smoke.workdir / "report" / "index.html"
    assert smoke.out.rstrip().endswith(f"The page: {page}")
    assert "system_accuracy" in smoke.out
    text = page.read_text()
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=\"(?!data:)", text)  # self-contained
    assert re.search("(holds|fails)", smoke.out)


def test_a_finished_run_does_nothing_but_print(smoke: Finished):
    before = stamps(smoke.workdir)
    again = smoke_run.call(smoke_run.command(smoke.workdir))
    assert again.returncode == 0, again.stderr
    assert stamps(smoke.workdir) == before
    assert smoke.out.endswith(again.stdout)
    assert "[1/" not in again.stdout


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The error of a run that does not begin."""
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)

    def run(workdir: Path, *more: str) -> str:
        assert cli.main(smoke_run.command(workdir, *more)[3:]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "Traceback" not in shown.err
        return shown.err

    return run


def test_another_configuration_is_refused(smoke: Finished, refused: Callable[..., str]):
    before = stamps(smoke.workdir)
    error = refused(smoke.workdir, "--config.seed=1", "--config.labels.rollouts=3")
    assert "seed: 0 there, 1 here" in error
    assert "labels.rollouts: 2 there, 3 here" in error
    assert stamps(smoke.workdir) == before


@pytest.fixture
def copy(smoke: Finished, tmp_path: Path) -> Path:
    """A finished folder to damage."""
    return shutil.copytree(smoke.workdir, tmp_path / "run")


def test_one_stage_and_all_later_ones_again(smoke: Finished, copy: Path):
    only = smoke_run.call(smoke_run.command(copy, "--only=orm_balanced"))
    assert only.returncode == 0, only.stderr
    assert re.findall(r"^\[\d+/\d+\] (\w+)", only.stdout, re.MULTILINE) == ["orm_balanced"]
    assert results(copy) == results(smoke.workdir)  # the same bytes, so nothing after it is stale
    later = smoke_run.call(smoke_run.command(copy, "--from=report"))
    assert later.returncode == 0, later.stderr
    assert re.findall(r"^\[\d+/\d+\] (\w+)", later.stdout, re.MULTILINE) == ["report"]
    assert results(copy) == results(smoke.workdir)


def test_a_truncated_artifact_is_named(copy: Path, refused: Callable[..., str]):
    path = copy / "sorm" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    error = refused(copy)
    assert str(path) in error
    assert f"--workdir={copy} --from=sorm" in error


def kill_in(workdir: Path, sign: Path, *more: str) -> None:
    """Starts a run and kills it with SIGKILL once a file or folder has appeared."""
    with subprocess.Popen(
        smoke_run.command(workdir, *more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 600
        while not sign.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert sign.exists()


def test_a_stage_killed_in_its_middle_ends_the_same(smoke: Finished, copy: Path):
    kill_in(copy, copy / "labels.partial" / "rollouts", "--only=labels")
    done = smoke_run.call(smoke_run.command(copy, "--only=labels"))
    assert done.returncode == 0, done.stderr
    assert "labels: roll out every prefix and label the steps (goes on where it stopped)" in done.stdout
    assert results(copy) == results(smoke.workdir)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_again_and_again_ends_the_same(smoke: Finished, tmp_path: Path):
    workdir = tmp_path / "run"
    for sign in ("expert_iteration.partial", "labels.partial/rollouts", "global_refiner.partial", "test.partial"):
        kill_in(workdir, workdir / sign)
    done = smoke_run.call(smoke_run.command(workdir))
    assert done.returncode == 0, done.stderr
    assert "test: walk test through the system (goes on where it stopped)" in done.stdout
    assert results(workdir) == results(smoke.workdir)
