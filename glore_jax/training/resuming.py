"""Checkpoints of a training under way, with all that it needs to go on as if it had never been cut.

    FOLDER/STEP/            one checkpoint: the state (Orbax) and what the host keeps (JSON)
    FOLDER/STEP.damaged/    one that could not be read back, set aside

A checkpoint is written beside its name and renamed, in the background: the state is copied to the host first, so the
training goes on, and donates its buffers, meanwhile. Every draw of a training follows from its seed, and its batches
from seed and step, so these two are the state of the random numbers and of the data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.parallel import hosts
from glore_jax.progress import say

_LOOK = 0.01  # seconds between two looks at a write that is waited for
_UNFINISHED, _DAMAGED = ".orbax-checkpoint-tmp", ".damaged"


@dataclasses.dataclass
class _Kept:
    """Which checkpoints stay: so many of the newest, and the best one once there is one."""

    count: int
    best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        newest = {info.step for info in checkpoints[-self.count :]}
        return [info.step in newest or info.step == self.best for info in checkpoints]


class Checkpoints:
    """Checkpoints of one training in one folder.

    Args:
      folder: made where it is missing.
      origin: what the training is, as JSON: its seed, its data and its length. A checkpoint of another training is
        refused.
      count: of the newest that stay: one to go on from, the others should that be damaged.
    """

    def __init__(self, folder: Path, origin: dict[str, Any], count: int):
        self.folder, self.origin, self._kept = folder.resolve(), origin, _Kept(count)
        self._unfinished = sorted(p.name for p in self.folder.glob(f"*{_UNFINISHED}*"))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._kept,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            # Ours says when; the policy of Orbax would skip a checkpoint while another is being written.
            save_decision_policy=checkpoint_managers.FixedIntervalPolicy(1),
        )
        self._failed: list[BaseException] = []
        handlers = {"state": ocp.StandardCheckpointHandler(), "host": ocp.JsonCheckpointHandler()}
        for handler in handlers.values():
            _note(handler, self._failed)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    @property
    def newest(self) -> Path | None:
        """The folder of the newest checkpoint, once it is written whole."""
        with self._writing():
            self._settle()
        step = self._manager.latest_step()
        return None if step is None else self.folder / str(step)

    def restore(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """The newest state that is whole, placed as `state` is, and what the host had kept; or `state` and nothing.

        A checkpoint that was not finished or is damaged is named, and the one before it is taken: the steps in between
        are computed again, to the same result.

        Raises:
          InputError: a checkpoint of a training with another seed, data or length.
        """
        for name in self._unfinished:
            say(f"checkpoint {self.folder / name}: was not finished when the run ended; it is not used")
        for step in sorted(self._manager.all_steps(), reverse=True):
            found = self._tried(step, state)
            if not hosts.any_of(isinstance(found, DamagedError)):  # one process may read what another cannot
                return found
            why = found if isinstance(found, DamagedError) else "another process cannot read it"
            say(f"WARNING: checkpoint {self._set_aside(step)}: {why}; it is set aside, and the one before it is taken")
        if self._unfinished or list(self.folder.glob(f"*{_DAMAGED}")):
            say(f"WARNING: no checkpoint in {self.folder} is whole; the training begins anew")
        return state, {}

    def read(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
        """The checkpoint of one step, as `restore` gives it.

        Raises:
          DamagedError: it cannot be read, or is not what was written.
          InputError: as `restore`.
        """
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        record = _opened(self._item(step, host=ocp.args.JsonRestore())["host"])
        self._check_origin(step, record["origin"])
        found = self._item(step, state=ocp.args.StandardRestore(target))["state"]
        if changed := [name for name, sums in _sums(found).items() if record["sums"].get(name) != sums]:
            raise DamagedError(f"{changed[0]} is not what was written ({len(changed)} such of {len(record['sums'])})")
        return found, record["kept"]

    def _tried(self, step: int, state: Any) -> Any:
        try:
            return self.read(step, state)
        except DamagedError as error:
            return error

    def _item(self, step: int, **args: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except (jax.errors.JaxRuntimeError, MemoryError):
            raise  # no room for it: it may be whole
        except Exception as error:  # whatever Orbax and TensorStore raise of missing, cut and foreign files
            said = str(error).partition(" [tensorstore_spec")[0].splitlines() or [type(error).__name__]
            raise DamagedError(f"cannot be read ({said[0]})") from error

    def _check_origin(self, step: int, origin: dict[str, Any]) -> None:
        keys = [key for key in origin | self.origin if origin.get(key) != self.origin.get(key)]
        if keys:
            lines = [f"{key}: {origin.get(key)!r} there, {self.origin.get(key)!r} here" for key in keys]
            raise InputError(
                f"{self.folder / str(step)}: a checkpoint of another training ({'; '.join(lines)}); set these back, or "
                "remove the folder to begin anew"
            )

    def _set_aside(self, step: int) -> Path:
        path = self.folder / str(step)
        damaged = path.with_name(path.name + _DAMAGED)
        if hosts.lead():
            path.rename(damaged)
        hosts.barrier("set aside")
        self._manager.reload()
        return damaged

    def save(self, step: int, state: Any, kept: dict[str, Any], best: int | None = None) -> None:
        """Copies the state to the host and has it written in the background.

        Args:
          kept: what the host wants back, as JSON.
          best: the step whose checkpoint is to stay beside the newest ones.

        Raises:
          InputError: the disk is full.
        """
        self._kept.best = best
        record = _sealed({"origin": self.origin, "sums": _sums(state), "kept": kept})
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(record))
        with self._writing():
            self._settle()
            self._manager.save(step, args=args)

    def close(self) -> None:
        """Waits for what is being written."""
        with self._writing():
            self._settle()
            self._manager.close()

    def _settle(self) -> None:
        """Waits for what is being written, and raises what a write of this process has failed with.

        Orbax raises that once all processes have met, and those that have not failed meet elsewhere, for many minutes.
        """
        while self._manager.is_saving_in_progress():
            if self._failed:
                raise self._failed[0]
            time.sleep(_LOOK)
        self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """InputError where the disk is full, which may be that of a save before: they are written in the background."""
        try:
            yield
        except Exception as error:
            if not files.full(error):
                raise
            raise files.unwritable(self.folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error


def _note(handler: Any, failed: list[BaseException]) -> None:
    """Has a handler of Orbax keep what its writes in the background fail with."""
    plain = handler.async_save

    async def async_save(*args: Any, **options: Any) -> Any:
        return [_Noted(future, failed) for future in await plain(*args, **options) or ()]

    handler.async_save = async_save


@dataclasses.dataclass
class _Noted:
    """A future of Orbax whose error is kept when it is raised."""

    future: Any
    failed: list[BaseException]

    def result(self, timeout: int | None = None) -> Any:
        try:
            return self.future.result(timeout=timeout)
        except BaseException as error:
            self.failed.append(error)
            raise


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


def check(name: str, settings: Any) -> None:
    """InputError where `checkpoints` of the settings `name` would leave none to go on from."""
    if settings.checkpoints < 1:
        raise InputError(
            f"{name}.checkpoints={settings.checkpoints}: at least the newest one has to stay; 2 survive damage of one"
        )


@contextlib.contextmanager
def opened(folder: Path | None, origin: dict[str, Any], count: int = 2) -> Iterator[Checkpoints | None]:
    """The checkpoints of a training; whatever ends the block, what is being written is written to its end.

    Args:
      folder, origin, count: as `Checkpoints` has them; without a folder there are none.
    """
    saved = Checkpoints(folder, origin, count) if folder is not None else None
    try:
        yield saved
    finally:
        if saved:
            saved.close()


def reached(folder: Path) -> int:
    """Steps behind the newest checkpoint in a folder; 0 where there is none."""
    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    return max(steps, default=0)


def _sealed(record: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(record)
    return {"text": text, "crc32": zlib.crc32(text.encode())}


def _opened(sealed: Any) -> dict[str, Any]:
    if not isinstance(sealed, dict) or set(sealed) != {"text", "crc32"}:
        raise DamagedError("what the host kept is not of this package")
    if zlib.crc32(sealed["text"].encode()) != sealed["crc32"]:
        raise DamagedError("what the host kept is not what was written")
    return json.loads(sealed["text"])


def _sums(state: Any) -> dict[str, int]:
    """A checksum of each array of a tree, by path.

    It is a sum over integers, computed where the arrays lie, so it takes milliseconds and is the same for every
    placement. Orbax itself checks its index, not the numbers.
    """
    leaves = jax.tree.leaves_with_path(state)
    sums = np.asarray(jax.jit(_checksums)([leaf for _, leaf in leaves]))
    return {jax.tree_util.keystr(path): int(value) for (path, _), value in zip(leaves, sums, strict=True)}


def _checksums(leaves: Sequence[jax.Array]) -> jax.Array:
    """uint32 [leaves]: of the bits of each, weighted by odd numbers, so that no change of one number goes unseen."""
    return jnp.stack([_checksum(leaf) for leaf in leaves])


def _checksum(array: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(array, unsigned[array.dtype.itemsize]).astype(jnp.uint32)
    weights = jnp.uint32(1)
    for axis in range(array.ndim):  # by axis, because a flat index would have the array gathered on one device
        index = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
        weights = weights * (2 * index + 1) if axis else 2 * index + 1
    return jnp.sum(bits * weights, dtype=jnp.uint32)
