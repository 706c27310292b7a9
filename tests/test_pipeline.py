"""Skipping, going on, refusing and checking, on toy stages."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glore_jax import files, pipeline, workfolder
from glore_jax.errors import InputError
from glore_jax.interrupts import Interrupted, stoppable
from glore_jax.pipeline import Stage, StageContext

_TOY = Path(__file__).with_name("toy_recipe.py")


def _load_toy() -> Any:
    spec = importlib.util.spec_from_file_location("toy_recipe", _TOY)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_recipe"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


toy = _load_toy()


class Counter:
    """The toy stages, counting how often each has run."""

    def __init__(self):
        self.ran: list[str] = []
        self.stages = tuple(Stage(s.name, s.inputs, self._counted(s), s.summary, s.config_keys) for s in toy.STAGES)

    def _counted(self, stage: Stage) -> Callable[[StageContext], dict]:
        def run(context: StageContext) -> dict:
            self.ran.append(stage.name)
            return stage.run(context)

        return run

    def run(self, workdir: Path, config: Any = None, **options: Any) -> list[str]:
        """Names of the stages that a run went through."""
        self.ran.clear()
        pipeline.run(config or toy.toy_config(), workdir, self.stages, **options)
        return list(self.ran)


@pytest.fixture
def counter() -> Counter:
    return Counter()


ALL = ["numbers", "squares", "total"]


def test_a_finished_run_does_nothing_but_report(tmp_path: Path, counter: Counter, capsys: pytest.CaptureFixture[str]):
    reported: list[Path] = []
    assert counter.run(tmp_path / "w", report=reported.append) == ALL
    out = capsys.readouterr().out
    assert "[2/3] squares: raise to a power\n  count 4, largest 9 [" in out
    assert "all 3 stages are done; this run took" in out
    before = toy.artifacts(tmp_path / "w")
    assert before["total/deep/total.json"] == b'{\n  "total": 14\n}\n'
    assert counter.run(tmp_path / "w", report=reported.append) == []
    assert capsys.readouterr().out == ""
    assert toy.artifacts(tmp_path / "w") == before
    assert reported == [tmp_path / "w"] * 2


def test_a_manifest_tells_where_its_files_come_from(tmp_path: Path, counter: Counter):
    counter.run(tmp_path)
    manifest = json.loads((tmp_path / "squares" / files.MANIFEST).read_text())
    numbers = json.loads((tmp_path / "numbers" / files.MANIFEST).read_text())
    assert manifest["counts"] == {"count": 4, "largest": 9}
    assert manifest["inputs"] == {"numbers": workfolder.fingerprint(numbers)}
    assert set(manifest["files"]) == {"squares.json"}  # the checkpoint was scratch
    assert manifest["files"]["squares.json"]["sha256"] == files.sha256(tmp_path / "squares/squares.json")
    assert manifest["version"] == workfolder.package_version()
    assert manifest["seconds"] >= 0
    assert manifest["peak_memory_bytes"] > 1_000_000


def test_another_configuration_is_refused_with_the_keys(tmp_path: Path, counter: Counter):
    counter.run(tmp_path)
    before = toy.artifacts(tmp_path)
    config = toy.toy_config()
    config.numbers.count, config.label = 5, "other"
    with pytest.raises(InputError) as error:
        counter.run(tmp_path, config)
    assert "numbers.count: 4 there, 5 here" in str(error.value)
    assert "label: 'toy' there, 'other' here" in str(error.value)
    assert "power" not in str(error.value)
    assert "another --workdir" in str(error.value)
    assert toy.artifacts(tmp_path) == before


def test_a_folder_goes_on_on_other_devices(tmp_path: Path, counter: Counter):
    def on(devices: int, preset: str) -> Any:
        config = toy.toy_config()
        config.devices, config.sharding = devices, {"preset": preset}
        return config

    assert counter.run(tmp_path, on(1, "replicated")) == ALL
    assert counter.run(tmp_path, on(8, "fsdp")) == []
    assert counter.run(tmp_path) == []  # nor does it matter that it is not said


def test_a_stage_is_given_its_placement(tmp_path: Path):
    found = []

    def run(context: StageContext) -> dict:
        found.append(context.placement.at("embed").spec)
        return {}

    config = toy.toy_config()
    config.sharding = {"preset": "fsdp", "sampling": "", "rules": ()}
    config.sharding.update(dict.fromkeys(("data", "fsdp", "tensor", "sequence"), 0))
    pipeline.run(config, tmp_path / "split", [Stage("one", (), run, "look", ())])
    pipeline.run(toy.toy_config(), tmp_path / "whole", [Stage("one", (), run, "look", ())])
    assert list(map(tuple, found)) == [("fsdp",), ()]


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path, counter: Counter):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"not a work folder .*\(holds report\)"):
        counter.run(tmp_path)
    assert (tmp_path / "report" / "thesis.txt").read_text() == "years of work"


def test_only_runs_one_stage_again(tmp_path: Path, counter: Counter):
    counter.run(tmp_path)
    before = toy.artifacts(tmp_path)
    assert counter.run(tmp_path, only="squares") == ["squares"]
    assert toy.artifacts(tmp_path) == before
    assert counter.run(tmp_path) == []  # the same bytes came out, so `total` is still good


def test_only_needs_its_inputs(tmp_path: Path, counter: Counter):
    with pytest.raises(InputError, match="the stage numbers is missing; run without --only, or --only=numbers"):
        counter.run(tmp_path, only="squares")
    assert counter.run(tmp_path, only="numbers") == ["numbers"]
    assert counter.run(tmp_path, only="squares") == ["squares"]
    assert counter.run(tmp_path) == ["total"]


def test_from_runs_that_stage_and_all_later_ones(tmp_path: Path, counter: Counter):
    assert counter.run(tmp_path, start_from="squares") == ALL
    assert counter.run(tmp_path, start_from="squares") == ["squares", "total"]
    assert counter.run(tmp_path, start_from="numbers") == ALL
    with pytest.raises(InputError, match="exclude each other"):
        counter.run(tmp_path, start_from="squares", only="squares")


@pytest.mark.parametrize("option", ["only", "start_from"])
def test_an_unknown_stage_names_the_nearest(tmp_path: Path, counter: Counter, option: str):
    with pytest.raises(InputError, match=r"=sqares: no such stage; did you mean squares\?"):
        counter.run(tmp_path / "w", **{option: "sqares"})
    assert not (tmp_path / "w").exists()


def test_a_stage_runs_again_when_a_file_outside_changes(tmp_path: Path):
    source, ran = tmp_path / "mine.txt", []

    def read(context: StageContext) -> dict:
        ran.append(source.read_text())
        return {}

    absent = tmp_path / "not there"
    stages = [Stage("read", (), read, "reads", ("power",), outside=lambda config: [source, absent])]
    for text, expected in (("a", 1), ("a", 1), ("bb", 2)):
        source.write_text(text)
        pipeline.run(toy.toy_config(), tmp_path / "run", stages)
        assert len(ran) == expected
    moved = [dataclasses.replace(stages[0], outside=lambda config: [tmp_path / "elsewhere.txt", absent])]
    (tmp_path / "elsewhere.txt").write_text("bb")
    pipeline.run(toy.toy_config(), tmp_path / "run", moved)
    assert len(ran) == 2  # the same bytes in another place are the same
    source.write_text("ccc")
    assert [s.state for s in pipeline.states(toy.toy_config(), tmp_path / "run", stages)] == ["stale"]
    source.unlink()
    with pytest.raises(FileNotFoundError):  # the stage's own error, not the pipeline's
        pipeline.run(toy.toy_config(), tmp_path / "run", stages)


def test_other_bytes_make_the_later_stages_stale(tmp_path: Path, counter: Counter):
    counter.run(tmp_path)

    def cubes(context: StageContext) -> dict:
        files.write_json(context.folder / "squares.json", [0, 1, 8])
        return {"count": 3}

    changed = (counter.stages[0], Stage("squares", ("numbers",), cubes, "cubes", ("power",)), counter.stages[2])
    counter.ran.clear()
    pipeline.run(toy.toy_config(), tmp_path, changed, only="squares")
    with pytest.raises(InputError, match="total: out of date"):
        last = Stage("last", ("total",), cubes, "needs a fresh total", ())
        pipeline.run(toy.toy_config(), tmp_path, (*changed, last), only="last")
    assert [s.state for s in pipeline.states(toy.toy_config(), tmp_path, changed)] == ["done", "done", "stale"]
    pipeline.run(toy.toy_config(), tmp_path, changed)
    assert counter.ran == ["total"]
    assert files.read_json(tmp_path / "total/deep/total.json") == {"total": 9}


def test_another_package_version_makes_everything_stale(
    tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
):
    counter.run(tmp_path)
    monkeypatch.setattr(workfolder, "package_version", lambda: "99")
    assert [s.state for s in pipeline.states(toy.toy_config(), tmp_path, toy.STAGES)] == ["stale"] * 3
    assert counter.run(tmp_path) == ALL


def test_a_stage_sees_only_the_keys_it_declared(tmp_path: Path):
    def greedy(context: StageContext) -> dict:
        return {"power": context.config.power}

    stage = Stage("greedy", (), greedy, "reads too much", ("numbers.count",))
    with pytest.raises(AttributeError, match="power"):
        pipeline.run(toy.toy_config(), tmp_path, [stage])
    with pytest.raises(InputError, match=r"stage absent: .* no key numbers\.cuont.* did you mean numbers\.count"):
        pipeline.run(toy.toy_config(), tmp_path, [Stage("absent", (), greedy, "", ("numbers.cuont",))])


def test_an_undeclared_input_and_a_wrong_order_are_programming_errors(tmp_path: Path):
    def sneaky(context: StageContext) -> dict:
        return {"path": str(context.input("numbers"))}

    with pytest.raises(ValueError, match="do not declare"):
        pipeline.run(toy.toy_config(), tmp_path, [toy.STAGES[0], Stage("sneaky", (), sneaky, "", ())])
    with pytest.raises(ValueError, match="earlier"):
        pipeline.check_order(list(reversed(toy.STAGES)))


def test_random_keys_go_by_stage_and_name(tmp_path: Path):
    import jax

    found: dict[str, tuple[int, ...]] = {}

    def draw(context: StageContext) -> dict:
        for name in ("", "x"):
            found[f"{context.stage.name}/{name}"] = tuple(jax.random.key_data(context.key(name)).tolist())
        assert context.key("x") == context.key("x")
        return {}

    pipeline.run(toy.toy_config(), tmp_path, [Stage("a", (), draw, "", ()), Stage("b", (), draw, "", ())])
    assert len(set(found.values())) == 4


def _damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[:-1], "foreign": bytes(len(data))}[how])


@pytest.mark.parametrize("how", ["truncated", "gone", "foreign"])
def test_a_damaged_artifact_is_named_before_compute_is_spent(tmp_path: Path, counter: Counter, how: str):
    counter.run(tmp_path)
    before = toy.artifacts(tmp_path)
    path = tmp_path / "numbers" / "numbers.parquet"
    _damage(path, how)
    counter.ran.clear()
    with pytest.raises(InputError) as error:
        counter.run(tmp_path, only="squares")
    assert str(path) in str(error.value)
    assert f"--workdir={tmp_path} --from=numbers" in str(error.value)
    assert counter.ran == []
    if how != "foreign":  # sizes are checked even where nothing is left to do
        with pytest.raises(InputError, match="--from=numbers"):
            counter.run(tmp_path)
        assert pipeline.states(toy.toy_config(), tmp_path, toy.STAGES)[0].state == "damaged"
    assert counter.run(tmp_path, start_from="numbers") == ALL
    assert toy.artifacts(tmp_path) == before


@pytest.mark.parametrize("text", [None, "", "[]", '{"stage": "numbers"}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, counter: Counter, text: str | None):
    counter.run(tmp_path)
    path = tmp_path / "squares" / files.MANIFEST
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(InputError) as error:
        counter.run(tmp_path)
    assert str(path) in str(error.value)
    assert "--from=squares" in str(error.value)
    assert counter.run(tmp_path, start_from="squares") == ["squares", "total"]


def test_a_stage_folder_from_elsewhere_is_foreign(tmp_path: Path, counter: Counter):
    counter.run(tmp_path / "w")
    (tmp_path / "w" / "squares").rename(tmp_path / "w" / "total2")
    (tmp_path / "w" / "total").rename(tmp_path / "w" / "squares")
    with pytest.raises(InputError, match="is not the manifest of the stage squares"):
        counter.run(tmp_path / "w")


def test_a_damaged_config_json_is_named(tmp_path: Path, counter: Counter):
    counter.run(tmp_path)
    (tmp_path / workfolder.CONFIG).write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not whole JSON"):
        counter.run(tmp_path)


def _failing(error: Exception) -> Callable[[StageContext], dict]:
    def run(context: StageContext) -> dict:
        raise error

    return run


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/checkpoint"),
        ValueError("RESOURCE_EXHAUSTED: write failed [No space left on device]"),
    ],
)
def test_a_full_disk_inside_a_stage_keeps_what_was_finished(tmp_path: Path, counter: Counter, error: Exception):
    full = (toy.STAGES[0], Stage("squares", ("numbers",), _failing(error), "", ("power",)))
    with pytest.raises(InputError, match=r"cannot be written .*No space left on device"):
        pipeline.run(toy.toy_config(), tmp_path, full)
    assert counter.run(tmp_path) == ["squares", "total"]


def test_other_errors_of_a_stage_are_left_as_they_are(tmp_path: Path):
    for error in (FileNotFoundError(errno.ENOENT, "no", "x"), PermissionError(errno.EACCES, "no", "/x"), KeyError("x")):
        with pytest.raises(type(error)):
            pipeline.run(toy.toy_config(), tmp_path, [Stage("bad", (), _failing(error), "", ())])


def test_a_file_in_place_of_the_work_folder_is_an_input_error(tmp_path: Path, counter: Counter):
    (tmp_path / "w").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        counter.run(tmp_path / "w")


def test_two_runs_do_not_write_at_once(tmp_path: Path, counter: Counter):
    with (
        workfolder.locked(tmp_path),
        pytest.raises(InputError, match=rf"another run \(process {os.getpid()}\)"),
    ):
        counter.run(tmp_path)
    assert counter.run(tmp_path) == ALL


def test_a_stage_killed_between_the_two_renames_is_given_back(tmp_path: Path, counter: Counter):
    counter.run(tmp_path)
    before = toy.artifacts(tmp_path)
    (tmp_path / "squares").rename(tmp_path / "squares.old")
    assert counter.run(tmp_path, only="total") == ["total"]
    assert toy.artifacts(tmp_path) == before


def test_work_begun_for_other_inputs_is_thrown_away(tmp_path: Path, counter: Counter):
    counter.run(tmp_path, only="numbers")
    partial = tmp_path / "squares.partial"
    files.write_json(partial / "checkpoint" / "state.json", [7, 7])
    files.write_json(partial / workfolder.IDENTITY, {"stage": "squares", "config": "of long ago"})
    counter.run(tmp_path)
    assert files.read_json(tmp_path / "squares/squares.json") == [0, 1, 4, 9]


def test_what_a_cut_run_again_has_begun_goes_where_the_stage_stands(tmp_path: Path, counter: Counter):
    counter.run(tmp_path)
    before = toy.artifacts(tmp_path)
    stages = [s if s.name != "squares" else dataclasses.replace(s, run=_cut) for s in counter.stages]
    with pytest.raises(RuntimeError):
        pipeline.run(toy.toy_config(), tmp_path, stages, start_from="squares")
    assert (tmp_path / "squares.partial").exists()
    assert counter.run(tmp_path) == []
    assert not (tmp_path / "squares.partial").exists()
    assert toy.artifacts(tmp_path) == before


def _cut(context: StageContext) -> dict:
    raise RuntimeError("cut")


def test_a_stage_goes_on_from_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    seen: list[bool] = []

    def half(context: StageContext) -> dict:
        seen.append(context.resumed)
        if not context.checkpoint.exists():
            files.write_text(context.checkpoint / "half", "done")
            raise RuntimeError("cut")
        return {"found": (context.checkpoint / "half").read_text()}

    stages = [Stage("half", (), half, "twice", ())]
    with pytest.raises(RuntimeError):
        pipeline.run(toy.toy_config(), tmp_path, stages)
    assert [s.state for s in pipeline.states(toy.toy_config(), tmp_path, stages)] == ["partial"]
    pipeline.run(toy.toy_config(), tmp_path, stages)
    assert seen == [False, True]
    assert "goes on where it stopped" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "half").iterdir()] == [files.MANIFEST]


@pytest.mark.parametrize("start_from", [None, "numbers"])
def test_a_run_killed_at_any_change_on_disk_ends_with_the_same_artifacts(tmp_path: Path, start_from: str | None):
    """Fresh, and while replacing finished stages: SIGKILL before each rename, removal and new folder in turn."""
    command = [sys.executable, str(_TOY), "kill-everywhere", str(tmp_path), *([start_from] if start_from else [])]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 30


def test_a_signal_is_one_exception_and_is_never_lost():
    before = signal.getsignal(signal.SIGTERM)
    with stoppable() as stop:
        stop.check()
        with pytest.raises(Interrupted) as found:
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            stop.check()  # as if the first one had been dropped inside a finaliser
    assert found.value.exit_code == 0
    assert isinstance(found.value, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_waits_where_it_is_held_and_ctrl_c_does_not():
    with stoppable() as stop, pytest.raises(Interrupted) as found:
        with stop.held() as asked:
            assert not asked()
            signal.raise_signal(signal.SIGTERM)
            stop.check()
            assert asked()
        raise AssertionError("the end of the block raises")
    assert found.value.signal == signal.SIGTERM
    with pytest.raises(Interrupted) as found, stoppable() as stop, stop.held():
        signal.raise_signal(signal.SIGINT)
    assert found.value.exit_code == 130


def test_the_machinery_does_not_import_jax():
    code = "import sys, glore_jax.cli, glore_jax.pipeline; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
