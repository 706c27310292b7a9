"""The processes of one run: usually one a host, each with devices of its own, all with the same configuration.

Process 0 *leads*: it decides which stage comes next, writes ordinary files and the manifests, and prints. The others
compute with it and stay silent. All of them see one work folder, on a file system that they share.

What a launcher has to do is to start `glore run` (or `train`, or `label`) N times with the same words and, by options
or by the environment:

    --coordinator=HOST:PORT   GLORE_COORDINATOR   where process 0 is reached; any port that is free there
    --processes=N             GLORE_PROCESSES     how many there are
    --process=I               GLORE_PROCESS       which one this is, from 0

or, where JAX can find these out by itself (TPU pods, Slurm, Open MPI), only

    --distributed             GLORE_DISTRIBUTED=1

An exit code of 75 says that another process died or hangs (`watch`): start all of them again, as few or as many as you
like, and the run goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import rich

from glore_jax import progress
from glore_jax.errors import InputError
from glore_jax.interrupts import Interrupted
from glore_jax.parallel.line import Line
from glore_jax.parallel.watch import Watch

T = TypeVar("T")

_START_SECONDS = 300  # that processes wait for the last one to come
_HEARTBEAT_SECONDS = 600  # after which JAX ends a job by itself; `watch` is quicker, and says more
_LOOK_SECONDS = 0.2  # between two looks at a barrier, at most
_SAY_SECONDS = 60.0  # between two lines that say for whom the lead waits
_CHUNKS = 1 << 16, 1 << 24  # bytes of each process that are gathered at a time: two shapes to compile


class _Group:
    """Attributes: index, of this process; count; watch, over the others; number, of the next barrier; left, the room of
    the last one.
    """

    def __init__(self, index: int = 0, count: int = 1, watch: Watch | None = None):
        self.index, self.count, self.watch = index, count, watch
        self.number = itertools.count()
        self.left: str | None = None


_group = _Group()


@contextlib.contextmanager
def joined(
    coordinator: str | None, processes: int | None, process: int | None, distributed: bool = False
) -> Iterator[None]:
    """A block that the processes of a job run together; it begins before any device is touched.

    Where the block fails in one of several processes that process ends here, and soon the others.

    Args:
      coordinator, processes, process: see above; all None for one process alone.
      distributed: JAX finds out what is None.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if not distributed and 0 < len(missing) < len(given):
        raise InputError(f"{', '.join(missing)} missing; give {', '.join(given)} together, or --distributed")
    if processes == 1 or (missing and not distributed):
        yield
        return
    _start(coordinator, processes, process)
    try:
        yield
    except Interrupted as stop:
        _fail(128 + stop.signal, "", stop.signal.name, stop.exit_code)
    except KeyboardInterrupt:
        _fail(130, "", "SIGINT")
    except InputError as error:
        _fail(2, f"error: {error}", str(error))
    except Exception as error:
        _fail(1, traceback.format_exc(), f"{type(error).__name__}: {error}")
    _end()


def _start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes of a job; each argument that is None is for JAX to find out.

    Raises:
      InputError: the arguments do not fit together, or not all processes came.
    """
    global _group
    import jax

    if processes is not None and process is not None and not 0 <= process < processes:
        raise InputError(
            f"--process={process}: expected a number from 0 to {processes - 1}, for --processes={processes}"
        )
    # Its handler would take SIGTERM away from `interrupts`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        coordinator, processes, process = _found_out(coordinator, processes, process)
        watch = Watch(process, processes, coordinator)
        jax.distributed.initialize(
            Line(coordinator, watch.cut).address if process else coordinator,
            processes,
            process,
            initialization_timeout=_START_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        where = f" at {coordinator}" if coordinator else ""
        raise InputError(
            f"the processes of this job did not come together{where}: {str(error).splitlines()[0]}. Start as many as "
            "--processes says, with --process=0 on the host of --coordinator; its port must be free, and open to the "
            "others"
        ) from error
    watch.start(_client())  # before the devices are: who dies while they come together is missed too
    _group = _Group(jax.process_index(), jax.process_count(), watch)
    if _group.index:
        rich.get_console().quiet = True


def _found_out(coordinator: str | None, processes: int | None, process: int | None) -> tuple[str, int, int]:
    """What JAX finds in the place of each None; there is no public name for that."""
    from jax._src.clusters import ClusterEnv

    given = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"), processes, process
    found = ClusterEnv.auto_detect_unset_distributed_params(*given, None, None, _START_SECONDS)
    coordinator, processes, process, _ = found
    if coordinator is None or processes is None or process is None:
        raise ValueError("JAX finds neither a TPU slice nor Slurm nor Open MPI here")
    return coordinator, processes, process


def _client() -> Any:
    """JAX's connection to the coordinator, for which there is no public name."""
    from jax._src import distributed

    return distributed.global_state.client


def index() -> int:
    return _group.index


def count() -> int:
    return _group.count


def lead() -> bool:
    """Whether this process writes files and prints."""
    return _group.index == 0


def share(items: Sequence[T]) -> list[T]:
    """Every N-th of the items, from this process's number on: each item is in the share of one process.

    >>> share([5, 6, 7])
    [5, 6, 7]
    """
    return list(items[_group.index :: _group.count])


def of_all() -> str:
    """For the label of work of which this process shows its own share.

    >>> "samples" + of_all()
    'samples'
    """
    return f", share 1 of {_group.count}" if _group.count > 1 else ""


def barrier(name: str) -> None:
    """Returns once every process is here; now and then the lead says for whom it waits.

    They look for each other by turns instead of waiting in JAX, so that a signal gets through.
    """
    if _group.count == 1:
        return
    client, room = _client(), f"glore/barrier/{next(_group.number)}/"
    client.key_value_set(f"{room}{_group.index}", name)
    began, said, pause = time.monotonic(), 0, 0.002
    while len(here := dict(client.key_value_dir_get(room))) < _group.count:
        time.sleep(pause)
        pause = min(2 * pause, _LOOK_SECONDS)
        if time.monotonic() - began > (said + 1) * _SAY_SECONDS:
            said += 1
            missing = [n for n in range(_group.count) if f"{room}{n}" not in here]
            assert _group.watch is not None
            progress.say(f"{name}: waiting for {', '.join(_group.watch.names[n] for n in missing)}")
    if others := set(here.values()) - {name}:
        raise RuntimeError(f"processes have met at {name!r} and {others}: they no longer do the same")
    if lead() and _group.left is not None:
        client.key_value_delete(_group.left)  # whoever is here has seen that all were there
    _group.left = room


def gather(name: str, value: T) -> list[T]:
    """What each process hands in, in the order of their numbers, on all of them.

    Args:
      name: of the barrier that comes first.
      value: anything that can be pickled.
    """
    if _group.count == 1:
        return [value]
    barrier(name)  # however long others take: a collective of devices does not wait for hours
    from jax.experimental.multihost_utils import process_allgather

    data = np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8)
    sizes = [
        int(high) << 24 | int(low) for high, low in process_allgather(np.array(divmod(len(data), 1 << 24), np.int32))
    ]
    chunk = _CHUNKS[max(sizes) > _CHUNKS[0]]
    found = [bytearray() for _ in sizes]
    for at in range(0, max(sizes), chunk):
        mine = data[at : at + chunk]
        blocks = process_allgather(np.pad(mine, (0, chunk - len(mine))))
        for whole, size, block in zip(found, sizes, blocks, strict=True):
            whole += block[: max(0, min(chunk, size - at))].tobytes()
    return [pickle.loads(whole) for whole in found]


def of_lead(name: str, make: Callable[[], T]) -> T:
    """What process 0 finds, on all of them: for decisions that all have to take alike."""
    return gather(name, make() if lead() else None)[0]  # type: ignore[return-value]


def any_of(flag: bool) -> bool:
    """Whether any process says so; all ask at the same place, such as every few steps of a training."""
    if _group.count == 1:
        return flag
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.any(process_allgather(np.array(flag))))


def whole(tree: Any) -> Any:
    """Arrays, of which those that lie on the devices of several processes come whole into the memory of each."""
    if _group.count == 1:
        return tree
    import jax
    from jax.experimental.multihost_utils import process_allgather

    def read(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return x
        return np.asarray(x.addressable_data(0)) if x.is_fully_replicated else process_allgather(x, tiled=True)

    return jax.tree.map(read, tree)


def _fail(code: int, message: str, reason: str, exit_code: int | None = None) -> None:
    """Ends this process and the job; an orderly end would wait for the others, who may wait for this one.

    Args:
      code: that the others are told; more than 128 hands a signal on.
      exit_code: of this process, where it is another.
    """
    sys.stdout.flush()
    assert _group.watch is not None
    _group.watch.fail(code, message, reason.splitlines()[0] if reason else "", exit_code)


def _end() -> None:
    import jax

    assert _group.watch is not None
    barrier("end")
    _group.watch.stop()
    jax.distributed.shutdown()
