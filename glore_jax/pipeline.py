"""The machinery of a run: a list of stages over a work folder; skip what is done, go on where it stopped.

A stage is a function from finished input folders and a configuration to files in its own folder. What
it returns are counts to print. Its result stands while its identity stands: the part of the
configuration that it reads, the bytes of its inputs, and the package's version.
"""

from __future__ import annotations

import dataclasses
import functools
import resource
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from glore_jax import configuration, files, goodput, progress, workfolder
from glore_jax.errors import InputError
from glore_jax.interrupts import Interrupted, Stop, stoppable
from glore_jax.parallel import hosts

if TYPE_CHECKING:
    import jax

    from glore_jax.parallel.placement import Placement


@dataclasses.dataclass(frozen=True)
class Stage:
    """One link of the pipeline.

    Attributes:
      name: also the name of its folder and of its randomness.
      inputs: names of the earlier stages whose folders it reads.
      run: does the work, writes into `context.folder`, returns counts to print and to keep.
      summary: one line, shown when it starts and by `glore stages`.
      config_keys: dotted keys or groups that it reads (`seed` is always there); it gets no others,
        so that its fingerprint cannot miss one.
      outside: files that it reads from elsewhere than the work folder, of the configuration it gets;
        the stage runs again when their bytes change.
      alone: whether of a job's processes only the lead runs it, because it computes nothing on devices. The others
        run all other stages with it; what stages write then goes through `stages.artifacts`, by which the lead writes.
    """

    name: str
    inputs: tuple[str, ...]
    run: Callable[[StageContext], dict[str, Any]]
    summary: str
    config_keys: tuple[str, ...]
    outside: Callable[[Any], Sequence[Path]] = lambda config: ()
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class StageContext:
    """What a stage is given.

    Attributes:
      stage: its own description.
      config: the keys it declared, and `seed`.
      workdir: the folder of the whole run.
      folder: where it writes. It survives a kill, so a stage that finds its own earlier work there
        goes on from it.
      resumed: whether there is such earlier work.
      seed: the run's seed.
      input: the finished folder of a declared input, checked; InputError where it is damaged.
      stop: `stop.check()` raises `Interrupted` where the run was asked to stop, for loops without a progress bar;
        `stop.held()` has SIGTERM wait for a checkpoint.
      sharding: the group of the configuration that says how arrays are split over devices, which changes no result;
        None: each device has whole models and some of the rows.
      clock: that the stage's time is shared out by.
      observed: what is recorded beside the artifacts.
    """

    stage: Stage
    config: Any  # a ConfigDict; its own annotations would have a type checker doubt every nested key
    workdir: Path
    folder: Path
    resumed: bool
    seed: int
    input: Callable[[str], Path]
    stop: Stop
    sharding: Any = None
    clock: goodput.Clock = dataclasses.field(default_factory=goodput.Clock)
    observed: Observed = dataclasses.field(default_factory=lambda: Observed())

    @functools.cached_property
    def placement(self) -> Placement:
        """Where models and batches of trainings lie."""
        from glore_jax.parallel import placement  # here, as in `key`

        return placement.make(self.sharding)

    @functools.cached_property
    def sampling_placement(self) -> Placement:
        """Where models lie that are sampled from, or whose values are read."""
        from glore_jax.parallel import placement

        return placement.make(self.sharding, sampling=True)

    @property
    def metrics(self) -> Path:
        """Where what is recorded of the stage lies."""
        return self.workdir / goodput.METRICS / self.stage.name

    @property
    def checkpoint(self) -> Path:
        """Scratch for the state of work under way; removed when the stage is done."""
        return self.folder / workfolder.CHECKPOINT

    def progress(self, total: int, unit: str, label: str, start: int = 0) -> AbstractContextManager[progress.Bar]:
        """A progress bar of this stage: `with context.progress(500, "steps", "train") as bar: bar.advance()`."""
        return progress.track(total, unit, f"{self.stage.name}: {label}", start, self.check)

    def check(self) -> None:
        """Raises `Interrupted` where the run was asked to stop."""
        self.clock.tick()
        self.stop.check()

    def log(self, line: str) -> None:
        """Prints one line under the stage's name."""
        progress.say(f"{self.stage.name}: {line}")

    def key(self, name: str = "") -> jax.Array:
        """The stage's random key; one a name, the same in every run with this seed."""
        import jax  # here, so that listing stages or a mistyped option never waits for it

        return jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(f"{self.stage.name}/{name}".encode()))


@dataclasses.dataclass(frozen=True)
class Observed:
    """What is recorded of a run beside its artifacts, which are the same without.

    Attributes:
      profile: the first and the last step of a trace of each training; None for none.
      wandb: a project of Weights & Biases; "" for none.
      compiled: seconds that this process has spent on compiling so far.
    """

    profile: tuple[int, int] | None = None
    wandb: str = ""
    compiled: Callable[[], float] = lambda: 0.0


@dataclasses.dataclass(frozen=True)
class StageState:
    """How a stage stands in a work folder.

    Attributes:
      state: `done`; `partial` (begun, not finished); `stale` (made by another version, or from
        inputs that have changed); `damaged` (files missing or changed); `missing`.
      manifest: of a finished stage.
    """

    stage: Stage
    state: str
    manifest: workfolder.Manifest | None


def run(
    config: ConfigDict,
    workdir: str | Path,
    stages: Sequence[Stage],
    *,
    only: str | None = None,
    start_from: str | None = None,
    report: Callable[[Path], object] | None = None,
    observed: Observed | None = None,
) -> None:
    """Runs every stage that is not done yet, in order.

    Args:
      config: the whole configuration.
      workdir: made where it is missing; belongs to one configuration for good.
      stages: each after its inputs.
      only: run just this stage, again if it is done.
      start_from: run this stage and every later one, again if they are done.
      report: called with the folder once every stage is done; not called with `only`.
      observed: what is recorded beside the artifacts.

    Raises:
      InputError: a folder of another configuration or in use, an unknown stage, a damaged artifact,
        a full disk.
      Interrupted: Ctrl-C or SIGTERM; everything finished is kept.
    """
    workdir = Path(workdir)
    names = check_order(stages)
    if only is not None and start_from is not None:
        raise InputError("--only and --from exclude each other: give one of them")
    for option, name in (("--only", only), ("--from", start_from)):
        if name is not None and name not in names:
            raise InputError(f"{option}={name}: no such stage; {configuration.nearest(name, names)}")
    forced = {only} if only else set(names[names.index(start_from) :]) if start_from else set()
    began = time.monotonic()
    lock = workfolder.locked(workdir) if hosts.lead() else nullcontext()
    with stoppable() as stop, _last_word(), lock, _explained(workdir):
        if hosts.lead():
            workfolder.agree(workdir, config.to_dict())
            workfolder.clean(workdir)
        if hosts.count() > 1:
            workfolder.meet(workdir, hosts.of_lead("work folder", lambda: workfolder.mark(workdir)))
            workfolder.agree(workdir, config.to_dict())
        work = _Run(config, workdir, stages, stop, observed or Observed())
        skipped = [stage.name for stage in stages if not work.make(stage, only, forced)]
        if len(skipped) < len(stages) and not only:
            progress.say(
                f"all {len(stages)} stages are done; this run took {progress.duration(time.monotonic() - began)}"
            )
    if report is not None and not only and hosts.lead():
        report(workdir)


def check_order(stages: Sequence[Stage]) -> list[str]:
    """Names of the stages; ValueError where a name comes twice or an input does not come earlier."""
    names: list[str] = []
    for stage in stages:
        late = [name for name in stage.inputs if name not in names]
        if stage.name in names or late:
            raise ValueError(f"stage {stage.name}: its name must be new and its inputs {late} earlier than it")
        names.append(stage.name)
    return names


def states(config: ConfigDict, workdir: str | Path, stages: Sequence[Stage]) -> list[StageState]:
    """How each stage stands; writes nothing."""
    workdir, found = Path(workdir), {}
    for stage in stages:
        partial = (workdir / (stage.name + files.PARTIAL)).exists()
        try:
            manifest = workfolder.read_manifest(workdir / stage.name, stage.name)
            if manifest is not None:
                workfolder.verify(workdir / stage.name, manifest, content=False)
        except InputError:  # a listing says what is damaged; a run says how
            found[stage.name] = StageState(stage, "damaged", None)
            continue
        inputs = [found[name] for name in stage.inputs]
        good = manifest is not None and all(given.state == "done" for given in inputs)
        if manifest is not None and good:
            prints = {given.stage.name: workfolder.fingerprint(given.manifest or {}) for given in inputs}
            good = workfolder.matches(manifest, _identity(stage, config, prints))
        state = "done" if good else "partial" if partial else "stale" if manifest else "missing"
        found[stage.name] = StageState(stage, state, manifest)
    return list(found.values())


def _identity(stage: Stage, config: ConfigDict, inputs: dict[str, str]) -> workfolder.Identity:
    part = _part(stage, config)
    outside = [_digest(path) for path in stage.outside(ConfigDict(part))]
    return workfolder.identity(stage.name, part, inputs, outside)


def _digest(path: Path) -> str | None:
    """SHA-256 of a file, read once for as long as it stays the same; None where it is not there."""
    if not path.is_file():
        return None  # the stage's own error to tell
    stat = path.stat()
    return _digest_of(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _digest_of(path: Path, size: int, changed: int) -> str:
    return files.sha256(path)


def _seed(config: Any) -> int:
    return int(config.get("seed", 0))


def _part(stage: Stage, config: ConfigDict) -> dict[str, Any]:
    """The part of the configuration that a stage reads."""
    try:
        return configuration.select(config, stage.config_keys) | {"seed": _seed(config)}
    except InputError as error:
        raise InputError(f"stage {stage.name}: {error}") from error


@contextmanager
def _last_word() -> Iterator[None]:
    """Whoever reads the log of a scheduler's job should see that it did not end by itself."""
    try:
        yield
    except Interrupted as stop:
        if stop.signal == signal.SIGTERM:
            progress.say("preempted")
        raise


@contextmanager
def _explained(workdir: Path) -> Iterator[None]:
    """Turns a full disk, met in a library that does not write through `files`, into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        name = error.filename if isinstance(error, OSError) else None
        path = Path(name) if isinstance(name, str) else workdir
        ours = path.is_relative_to(workdir)
        if files.full(error) or (ours and isinstance(error, PermissionError)):
            raise files.unwritable(path, error) from error
        raise


@dataclasses.dataclass(frozen=True)
class _Step:
    """What the lead has decided on a stage.

    Attributes:
      expected: its identity.
      made: whether it counts as made in this run.
      to_run: whether its work is still to be done.
      resumed: see `StageContext`.
    """

    expected: workfolder.Identity
    made: bool
    to_run: bool
    resumed: bool = False


class _Run:
    """One run under way: which inputs have been checked, and the work on a single stage."""

    def __init__(self, config: ConfigDict, workdir: Path, stages: Sequence[Stage], stop: Stop, observed: Observed):
        self.config, self.workdir, self.stop, self.observed = config, workdir, stop, observed
        self.stages = {stage.name: stage for stage in stages}
        self.sound: set[str] = set()  # stages whose files have been read through and found whole

    def make(self, stage: Stage, only: str | None, forced: set[str]) -> bool:
        """Runs a stage unless it is done or not asked for; whether it did."""
        if only and stage.name != only:
            return False
        self.stop.check()
        step = hosts.of_lead(stage.name, lambda: self._decide(stage, only, forced))
        if not step.to_run:
            return step.made
        if not hosts.lead():
            for name, made in step.expected["inputs"].items():
                workfolder.appear(self.workdir / name, name, made)
        try:
            self._work(stage, step)
        except Interrupted:
            option = f" with --from={stage.name}" if stage.name in forced and not only else ""
            progress.say(
                f"stopped in stage {stage.name}; what is finished is kept. "
                f"To go on, type the same command again{option}."
            )
            raise
        return True

    def _decide(self, stage: Stage, only: str | None, forced: set[str]) -> _Step:
        """What is to be done for a stage, and all that comes before its work."""
        if only:
            for name in stage.inputs:
                self._require(stage, name)
        inputs = {name: workfolder.fingerprint(self._manifest(name)) for name in stage.inputs}
        expected = _identity(stage, self.config, inputs)
        if stage.name not in forced and self._is_done(stage, expected):
            workfolder.end(self._partial(stage), expected)
            return _Step(expected, made=False, to_run=False)
        partial = self._partial(stage)
        if workfolder.adopt(partial, self.workdir / stage.name, expected) is not None:
            progress.say(f"{self._place(stage)}: was complete already")
            return _Step(expected, made=True, to_run=False)
        for name in stage.inputs:
            self._read_through(name)  # before compute is spent
        resumed = workfolder.begin(partial, expected)
        progress.say(f"{self._place(stage)}: {stage.summary}{' (goes on where it stopped)' if resumed else ''}")
        return _Step(expected, made=True, to_run=True, resumed=resumed)

    def _work(self, stage: Stage, step: _Step) -> None:
        """Runs a stage in its partial folder and publishes it with its manifest."""
        partial = self._partial(stage)
        path = self.workdir / goodput.METRICS / stage.name / goodput.TIME if hosts.lead() else None
        context = StageContext(
            stage=stage,
            config=ConfigDict(_part(stage, self.config)).lock(),
            workdir=self.workdir,
            folder=partial,
            resumed=step.resumed,
            seed=_seed(self.config),
            input=lambda name: self._input(stage, name),
            stop=self.stop,
            sharding=self.config.get("sharding"),
            clock=goodput.Clock(path, step.resumed, self.observed.compiled),
            observed=self.observed,
        )
        began = time.monotonic()
        try:
            counts = stage.run(context) if hosts.lead() or not stage.alone else {}
            context.clock.keep()
        finally:
            context.clock.write()
        hosts.barrier(f"end of {stage.name}")  # what the others have written is there
        if not hosts.lead():
            return
        seconds = time.monotonic() - began
        manifest = step.expected | {
            "revision": workfolder.git_revision(),
            "counts": counts,
            "seconds": round(seconds, 3),  # of the last attempt, where the stage was interrupted before
            "peak_memory_bytes": peak_memory(),
            "files": workfolder.describe(partial),
        }
        files.write_json(partial / files.MANIFEST, manifest)
        workfolder.publish(partial, self.workdir / stage.name)
        self.sound.add(stage.name)
        made = ", ".join(f"{name} {progress.number(value)}" for name, value in counts.items())
        progress.say(f"  {made or 'done'} [{progress.duration(seconds)}]")

    def _partial(self, stage: Stage) -> Path:
        return self.workdir / (stage.name + files.PARTIAL)

    def _place(self, stage: Stage) -> str:
        return f"[{list(self.stages).index(stage.name) + 1}/{len(self.stages)}] {stage.name}"

    def _is_done(self, stage: Stage, expected: workfolder.Identity) -> bool:
        manifest = workfolder.read_manifest(self.workdir / stage.name, stage.name)
        if manifest is None or not workfolder.matches(manifest, expected):
            return False
        workfolder.verify(self.workdir / stage.name, manifest, content=False)
        return True

    def _manifest(self, name: str) -> workfolder.Manifest:
        manifest = workfolder.read_manifest(self.workdir / name, name)
        if manifest is None:
            raise InputError(
                f"{self.workdir / name}: the stage {name} is missing; run without --only, or --only={name}"
            )
        return manifest

    def _require(self, stage: Stage, name: str) -> None:
        """Checks that an input of the one stage to run is there and up to date, and its own inputs too."""
        source = self.stages[name]
        for earlier in source.inputs:
            self._require(source, earlier)
        inputs = {earlier: workfolder.fingerprint(self._manifest(earlier)) for earlier in source.inputs}
        if not workfolder.matches(self._manifest(name), _identity(source, self.config, inputs)):
            raise InputError(
                f"{self.workdir / name}: out of date (other version or inputs), and stage {stage.name} needs it; "
                f"run --from={name}"
            )

    def _input(self, stage: Stage, name: str) -> Path:
        """The folder of a declared input."""
        if name not in stage.inputs:
            raise ValueError(f"stage {stage.name} reads {name}, which its inputs {stage.inputs} do not declare")
        self._read_through(name)
        return self.workdir / name

    def _read_through(self, name: str) -> None:
        """Checks every byte of a finished stage, once a run."""
        if name not in self.sound:
            workfolder.verify(self.workdir / name, self._manifest(name), content=hosts.lead())
            self.sound.add(name)


def peak_memory() -> int:
    """Bytes of memory that this process held at most, so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
