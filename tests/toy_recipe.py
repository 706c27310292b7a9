"""Three toy stages, and `glore` over them: run as a script, this file is the command line in a process to kill.

`numbers` writes a table, `squares` goes through it number by number with a checkpoint, `total` adds up.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import time
import types
from pathlib import Path

from ml_collections import ConfigDict

from glore_jax import files, goodput, workfolder
from glore_jax.pipeline import Stage, StageContext


@dataclasses.dataclass(frozen=True)
class Number:
    value: int


def toy_config() -> ConfigDict:
    return ConfigDict({"seed": 0, "numbers": {"count": 4}, "power": 2, "label": "toy"})


def numbers(context: StageContext) -> dict:
    rows = [Number(i + context.seed) for i in range(context.config.numbers.count)]
    files.write_table(context.folder / "numbers.parquet", rows, Number)
    return {"count": len(rows)}


def squares(context: StageContext) -> dict:
    rows = files.read_table(context.input("numbers") / "numbers.parquet", Number)
    state = context.checkpoint / "state.json"
    done = files.read_json(state) if state.exists() else []
    with context.progress(len(rows), "numbers", "square", start=len(done)) as bar:
        for row in rows[len(done) :]:
            time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
            done.append(row.value**context.config.power)
            files.write_json(state, done)
            bar.advance()
    files.write_json(context.folder / "squares.json", done)
    return {"count": len(done), "largest": max(done)}


def total(context: StageContext) -> dict:
    values = files.read_json(context.input("squares") / "squares.json")
    files.write_json(context.folder / "deep" / "total.json", {"total": sum(values)})
    return {"total": sum(values)}


STAGES = (
    Stage("numbers", (), numbers, "count up", ("numbers",)),
    Stage("squares", ("numbers",), squares, "raise to a power", ("power",)),
    Stage("total", ("numbers", "squares"), total, "add up", ()),
)


def print_report(workdir: Path) -> None:
    print("REPORT", json.loads((workdir / "total/deep/total.json").read_text())["total"])


def report(dirs: list[Path], output: Path | None = None) -> None:
    print("POOLED", len(dirs), output)


def recipe() -> types.ModuleType:
    """A stand-in for `glore_jax.stages`."""
    module = types.ModuleType("glore_jax.stages")
    checks = dict.fromkeys(("check_settings", "announce"), lambda config: None)
    for name, value in {"of": lambda config: STAGES, "print_report": print_report, "report": report, **checks}.items():
        setattr(module, name, value)
    return module


def artifacts(workdir: Path) -> dict[str, object]:
    """Every file of a work folder with its content, what differs from run to run left out."""
    found: dict[str, object] = {}
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir).as_posix()
        if path.is_file() and name != workfolder.LOCK and not name.startswith(f"{goodput.METRICS}/"):
            found[name] = path.read_bytes()
            if path.name == files.MANIFEST:
                manifest = json.loads(path.read_text())
                found[name] = {k: v for k, v in manifest.items() if k not in ("seconds", "peak_memory_bytes")}
    return found


def die_at(event_number: int) -> None:
    """Kills this process at the n-th time that it is about to rename, remove or make something on disk."""
    seen = 0

    def hook(event: str, _arguments: tuple) -> None:
        nonlocal seen
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
            seen += 1
            if seen == event_number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_everywhere(folder: Path, start_from: str | None) -> int:
    """Cuts a run at every change on disk in turn, goes on, and compares. Returns how many cuts there were."""
    from glore_jax import pipeline

    def in_child(workdir: Path, event_number: int) -> int:
        child = os.fork()
        if child == 0:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the process is about to end)
            os.fsync = lambda _: None  # a kill loses nothing that was written; only a power cut would
            die_at(event_number)
            pipeline.run(toy_config(), workdir, STAGES, start_from=start_from)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    workfolder.git_revision()  # asked once here, not in each child
    if in_child(folder / "uncut", 0) != 0:
        raise SystemExit("the uncut run failed")
    expected = artifacts(folder / "uncut")
    for event_number in range(1, 1000):
        workdir = folder / str(event_number)
        if start_from:
            shutil.copytree(folder / "uncut", workdir)
        status = in_child(workdir, event_number)
        if status == 0:
            return event_number - 1
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise SystemExit(f"cut {event_number}: failed in its own way, status {status}")
        if in_child(workdir, 0) != 0:
            raise SystemExit(f"cut {event_number}: the next run failed")
        if artifacts(workdir) != expected:
            different = sorted(set(artifacts(workdir)) ^ set(expected))
            raise SystemExit(f"cut {event_number}: other artifacts; files on one side only: {different}")
    raise SystemExit("the run never ended by itself")


if __name__ == "__main__":
    if sys.argv[1] == "kill-everywhere":
        print("cuts", kill_everywhere(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
        sys.exit(0)
    import glore_jax
    from glore_jax import cli

    sys.modules["glore_jax.stages"] = glore_jax.stages = recipe()  # type: ignore[attr-defined]
    cli.prepare_jax = lambda config: None
    sys.exit(cli.main())
