"""What the processes of a training decide together, without the devices waiting for it."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.parallel import hosts


class Votes:
    """Flags of which any process may raise one, at every step of a loop that all run alike.

    Several processes hear of each other's flags one step later: a sum over all devices is dispatched like a step of
    the training, and read once the next one is on its way.

    Args:
      count: of flags.
    """

    def __init__(self, count: int):
        devices = np.array(jax.devices())
        whole = jax.sharding.Mesh(devices, ("all",))
        self._rows, everywhere = NamedSharding(whole, P("all")), NamedSharding(whole, P())
        self._shape = len(devices), count
        self._sum = jax.jit(lambda flags_NxF: flags_NxF.sum(axis=0), out_shardings=everywhere)
        self._cast: jax.Array | None = None

    def of(self, *flags: bool) -> list[bool]:
        """Hands in this process's flags; those that any process had handed in one step before.

        One process alone hears its own at once.
        """
        if hosts.count() == 1:
            return list(flags)
        before = self._cast
        mine = np.asarray([flags], np.int32)
        self._cast = self._sum(jax.make_array_from_callback(self._shape, self._rows, lambda index: mine))
        if before is None:
            return [False] * len(flags)
        return [bool(raised) for raised in np.asarray(before)]
