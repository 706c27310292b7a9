"""A run's folder on disk: its lock, the configuration it belongs to, and each stage's manifest.

    DIR/config.json            the configuration that everything in the folder was made with
    DIR/STAGE/…                a finished stage, with manifest.json
    DIR/STAGE.partial/…        a stage under way; `checkpoint/` in it is scratch and goes when it is done

A folder of a finished stage comes into being by one rename, so it is whole or absent.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from glore_jax import configuration, files, records
from glore_jax.errors import InputError

CONFIG, LOCK, MARK, IDENTITY, CHECKPOINT = "config.json", ".lock", ".job", ".building.json", "checkpoint"
_PATIENCE = 60  # seconds that a file system may take to show one host what another has written
_OLD = ".old"
_SHOWN = 20  # differing keys that an error lists

Manifest = dict[str, Any]
Identity = dict[str, Any]


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the folder and holds it, so that no two runs write to it at once.

    Raises:
      InputError: not writable, or another run holds it (named by its process id).
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 (closed by the `with` below)
    except OSError as error:
        raise files.unwritable(workdir, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise InputError(
                f"{workdir}: another run (process {lock.read().strip() or 'unknown'}) is writing there; "
                "wait for it, stop it, or choose another --workdir"
            ) from error
        except OSError as error:
            raise InputError(f"{workdir}: cannot be locked ({error.strerror}); choose a --workdir that can") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def agree(workdir: Path, config: dict[str, Any]) -> None:
    """Claims a fresh folder for a configuration, and refuses one that belongs to another.

    Where a run computes (`configuration.RUNTIME`) may differ.

    Raises:
      InputError: other values (each key with both), or a folder that is no work folder at all.
    """
    path = workdir / CONFIG
    if not path.exists():
        strangers = sorted(entry.name for entry in workdir.iterdir() if not entry.name.startswith("."))
        if strangers:
            raise InputError(
                f"{workdir}: not a work folder (no {CONFIG}) and not empty (holds {', '.join(strangers[:5])}); "
                "choose a new folder as --workdir"
            )
        files.write_text(path, configuration.to_json(config))
        return
    different = configuration.differences(*map(configuration.lasting, (read_config(workdir), config)))
    if different:
        lines = [f"  {key}: {there!r} there, {here!r} here" for key, there, here in different[:_SHOWN]]
        if len(different) > _SHOWN:
            lines.append(f"  and {len(different) - _SHOWN} more")
        raise InputError(
            "\n".join([f"{workdir}: made by another configuration; the keys that differ:", *lines])
            + "\nChoose another --workdir, set these keys back, or delete the folder"
        )


def mark(workdir: Path) -> str:
    """Leaves a word in the folder, by which the other processes of a job can tell that they see the same one."""
    word = uuid.uuid4().hex
    files.write_text(workdir / MARK, word)
    return word


def meet(workdir: Path, word: str) -> None:
    """InputError where this process does not find the word that the lead has left in the work folder."""
    path = workdir / MARK
    if not _soon(lambda: path.is_file() and path.read_text(encoding="utf-8") == word):
        raise InputError(
            f"{workdir.resolve()}: not the folder that process 0 writes to; give a --workdir on a file system that all "
            "hosts share, by a path that is the same on each"
        )


def appear(folder: Path, stage: str, made: str) -> None:
    """Waits until this host sees a finished stage as the lead does; file systems over a network take their time.

    Args:
      made: the fingerprint of its manifest.
    """

    def seen() -> bool:
        try:
            manifest = read_manifest(folder, stage)
            if manifest is None or fingerprint(manifest) != made:
                return False
            verify(folder, manifest, content=False)
        except InputError:  # half of it
            return False
        return True

    if not _soon(seen):
        raise files.damaged(folder / files.MANIFEST, f"is not what process 0 has written, for {_PATIENCE} seconds")


def _soon(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within a minute."""
    end = time.monotonic() + _PATIENCE
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def read_config(workdir: Path) -> dict[str, Any]:
    """The configuration that a work folder was made with; InputError where the folder is none."""
    path = workdir / CONFIG
    try:
        return configuration.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{workdir}: not a work folder (no readable {CONFIG}); make one with `glore run --config=… --workdir=…`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: {error}. Delete the folder, or choose another --workdir") from error


def identity(
    stage: str, config: dict[str, Any], inputs: dict[str, str], outside: Sequence[str | None] = ()
) -> Identity:
    """What a stage's artifacts depend on; they are good as long as it stands.

    Args:
      stage: its name.
      config: the part of the configuration that it reads.
      inputs: fingerprint of each input stage's manifest.
      outside: digests of the files that it reads from elsewhere, None for one that is not there.
    """
    made = {
        "stage": stage,
        "config": configuration.fingerprint(config),
        "inputs": inputs,
        "version": package_version(),
    }
    return made | ({"outside": list(outside)} if outside else {})


def matches(manifest: Manifest, expected: Identity) -> bool:
    return all(manifest.get(key) == value for key, value in expected.items())


def fingerprint(manifest: Manifest) -> str:
    """Changes when the stage's identity or the bytes of any of its files change.

    A stage that is run again and makes the same bytes leaves the later stages good.
    """
    return records.fingerprint([manifest[key] for key in ("stage", "config", "inputs", "version", "files")])


def read_manifest(folder: Path, stage: str) -> Manifest | None:
    """The manifest of a finished stage; None where there is no such folder.

    Raises:
      InputError: a folder or a manifest that this package did not write.
    """
    if not folder.exists():
        return None
    path = folder / files.MANIFEST
    if not path.is_file():
        raise files.damaged(path, "is missing, so that folder is not a finished stage")
    manifest = files.read_json(path)
    expected = {"stage", "config", "inputs", "version", "files", "counts", "seconds"}
    if not isinstance(manifest, dict) or not expected <= set(manifest) or manifest["stage"] != stage:
        raise files.damaged(path, f"is not the manifest of the stage {stage}")
    return manifest


def verify(folder: Path, manifest: Manifest, content: bool) -> None:
    """Checks that a stage's files are the ones it wrote: sizes always, checksums where `content`.

    Raises:
      InputError: names the first file that is missing, truncated or foreign.
    """
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise files.damaged(path, "is missing")
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise files.damaged(path, f"is truncated or foreign: {size:,} bytes, its stage wrote {facts['bytes']:,}")
        if content and files.sha256(path) != facts["sha256"]:
            raise files.damaged(path, "is not the file that its stage wrote (checksum differs)")


def clean(workdir: Path) -> None:
    """Sweeps what a killed run left behind: replaced folders and half-written temporary files."""
    for old in workdir.glob(f"*{_OLD}"):
        final = old.with_name(old.name.removesuffix(_OLD))
        if final.exists():
            shutil.rmtree(old)
        else:  # killed between the two renames of `publish`
            old.rename(final)
    for path in files.leftovers(workdir):
        path.unlink()


def begin(partial: Path, expected: Identity) -> bool:
    """Opens a stage's partial folder; what is in it is kept only if it was begun for the same identity.

    Returns:
      Whether there is earlier work in it to go on from.
    """
    if _building(partial) == expected:
        return True
    if partial.exists():
        shutil.rmtree(partial)
    files.write_json(partial / IDENTITY, expected)
    return False


def end(partial: Path, expected: Identity) -> None:
    """Removes what was begun to make a stage again that stands as it is: it would come to the same."""
    if partial.exists() and _building(partial) in (expected, None):  # None: a removal that was cut
        shutil.rmtree(partial)


def _building(partial: Path) -> Identity | None:
    """What a partial folder was begun for; None where it does not say so."""
    try:
        return files.read_json(partial / IDENTITY)
    except InputError:  # absent or damaged: either way nothing to go on from
        return None


def adopt(partial: Path, final: Path, expected: Identity) -> Manifest | None:
    """Finishes a stage that was killed after its manifest and before its rename; None if it was not."""
    if not (partial / files.MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(partial, expected["stage"])
        if manifest is None or not matches(manifest, expected):
            return None
        verify(partial, manifest, content=True)
    except InputError:  # damaged since: the stage is run again, which replaces it
        shutil.rmtree(partial)
        return None
    publish(partial, final)
    return manifest


def describe(partial: Path) -> dict[str, dict[str, Any]]:
    """Checksum and size of every file of a stage, by path inside its folder; scratch left out."""
    return {
        path.relative_to(partial).as_posix(): {"sha256": files.sha256(path), "bytes": path.stat().st_size}
        for path in sorted(partial.rglob("*"))
        if path.is_file() and path.relative_to(partial).parts[0] not in (CHECKPOINT, IDENTITY, files.MANIFEST)
    }


def publish(partial: Path, final: Path) -> None:
    """Puts a complete partial folder in the finished one's place. A kill at any line loses nothing."""
    old = final.with_name(final.name + _OLD)
    if (partial / CHECKPOINT).exists():
        shutil.rmtree(partial / CHECKPOINT)
    (partial / IDENTITY).unlink(missing_ok=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    files.sync_folder(final.parent)
    if old.exists():
        shutil.rmtree(old)


def size(manifest: Manifest) -> int:
    """Bytes of all files of a finished stage."""
    return sum(facts["bytes"] for facts in manifest["files"].values())


@functools.cache
def package_version() -> str:
    try:
        return importlib.metadata.version("glore_jax")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def git_revision() -> str:
    """Commit that the code runs from, with `-dirty` after it where it was changed; "" outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository: ours tracks this very file.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return ""
