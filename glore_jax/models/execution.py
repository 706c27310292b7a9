"""How a decoder is computed. What it computes does not depend on it, but for rounding."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax

from glore_jax.parallel import rules
from glore_jax.parallel.placement import Placement

REMAT = ("none", "products", "full")
_OF_WEIGHTS = ("vocab", "embed", "heads", "kv_heads", "mlp")  # logical axes
_TILE = 16  # rows of a matrix in bfloat16 that lie together in the memory of a TPU
_SOLID = 32  # chips of a torus of three axes over which its compiler gathers and scatters at most (found by trying)


@dataclasses.dataclass(frozen=True)
class Execution:
    """Attributes:
    place: where arrays lie; None: nobody said, and nothing is asked of it.
    attention: which kernel reads whole rows, of `models.kernels.NAMES`; "": the best one for the devices that can.
    remat: what of a layer is kept for its gradients: `none`: everything is; `products`: matrix products are, and the
      rest is computed again; `full`: only what went into the layer is.
    own_rows: whether a device computes on its own rows alone, as in the body of `jax.shard_map`: of weights that are
      split over the axes that rows are split over it has a part, and gathers the rest when they are used.
    """

    place: Placement | None = None
    attention: str = ""
    remat: str = "none"
    own_rows: bool = False

    @property
    def platform(self) -> str:
        """Of the devices: `cpu`, `gpu` or `tpu`; "" of several of which nobody said how arrays are split over them.

        A kernel for TPUs has to be told, or it is not compiled.
        """
        if self.place is None:
            return jax.default_backend() if jax.device_count() == 1 else ""
        return self.place.mesh.devices.flat[0].platform

    @property
    def parts(self) -> tuple[int, int]:
        """How many parts the rows of an array are split into, and the tokens of each row."""
        if self.place is None:
            return 1, 1
        return 1 if self.own_rows else self.place.parts("batch"), self.place.parts("positions")

    @property
    def flat(self) -> bool:
        """Whether products are those of `models.products`: on CPUs that compute with whole rows and whole weights.

        Of parts of weights the compiler would gather more than without.
        """
        whole = self.place is None or self.own_rows or all(self.place.parts(name) == 1 for name in _OF_WEIGHTS)
        return self.platform == "cpu" and self.parts[1] == 1 and whole

    @property
    def splits_weights(self) -> bool:
        """Whether weights are split over axes that rows are split over, and nothing is over others (fsdp)."""
        if self.place is None:
            return False
        rows, axes = set(self.place.axes("batch")), {a for name in rules.NAMES for a in self.place.axes(name)}
        return axes == rows and any(self.place.axes(name) for name in rules.NAMES if name != "batch")

    def rows(self, x_BxTxD: jax.Array) -> jax.Array:
        """The residual stream, by rows and tokens: or XLA would rather gather these than the weights of a layer."""
        if self.place is None or self.own_rows:
            return x_BxTxD
        return self.place.constrain(x_BxTxD, "batch", "positions")

    def table(self, table_VxD: jax.Array) -> jax.Array:
        """The embedding with whole rows: of parts of rows XLA would make the whole batch's on every device."""
        return table_VxD if self.place is None else self.place.constrain(table_VxD, "vocab")

    def in_turn(self, x: jax.Array, weights: Any) -> tuple[jax.Array, Any]:
        """The same, where a device has parts of weights only once both are there, and so are their gradients.

        Else the compiler gathers weights long before they are used, and keeps gradients whole long after.
        """
        return jax.lax.optimization_barrier((x, weights)) if self.own_rows else (x, weights)

    def gather(self, weight: jax.Array, names: tuple[str, ...], dtype: jax.typing.DTypeLike) -> jax.Array:
        """A weight as layers compute with it: of their dtype, and whole where only a part was here.

        It travels in that dtype, and so do its gradients, which arrive summed over devices and split as it was.
        """
        weight = weight.astype(dtype)
        if self.place is not None and self.own_rows:
            for axis, name in enumerate(names):
                if taken := self.place.axes(name):
                    weight = _gathered(weight, taken, axis, self._torus)
        return weight

    @property
    def _torus(self) -> tuple[int, ...]:
        """TPU chips along each axis of the torus that they are linked in; none where there are no TPUs."""
        if self.place is None or self.platform != "tpu":
            return ()
        places = zip(*(device.coords for device in self.place.mesh.devices.flat), strict=True)
        return tuple(1 + max(along) for along in places if max(along))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gathered(part: jax.Array, taken: tuple[str, ...], axis: int, torus: tuple[int, ...]) -> jax.Array:
    """The whole of which each device on the mesh axes `taken` has a part, along an axis of the array.

    In the memory of a TPU parts that fill no tiles are padded, and copied once more when all of them are there. So they
    are gathered from as few neighbours first as fill tiles together; and as are many enough for the others to be within
    reach, where the torus has three axes, or the compiler makes a sum of the gather, with zeros for what is elsewhere.
    """
    n, size = jax.lax.axis_size(taken), part.shape[axis]
    gather = functools.partial(jax.lax.all_gather, axis_name=taken, axis=axis, tiled=True)
    reach = _SOLID if len(torus) == 3 else n
    few = next((k for k in range(1, n) if n % k == 0 and k * size % _TILE == 0 and n // k <= reach), 1)
    if not torus or few == 1:
        return gather(part)
    near, far = _groups(n, few)
    return gather(gather(part, axis_index_groups=near), axis_index_groups=far)


def _scattered(
    taken: tuple[str, ...], axis: int, torus: tuple[int, ...], _: None, whole: jax.Array
) -> tuple[jax.Array]:
    """Its gradient: the sum over devices, of which each gets its part.

    Over all of a torus the TPU compiler makes a sum for all of it, twice the bytes and the memory, where it is asked
    for in one go. So it is summed along one axis of a flat torus first, or over half of one with three, and what is
    left along the others.
    """
    n, ring = jax.lax.axis_size(taken), max(torus, default=0)
    scatter = functools.partial(jax.lax.psum_scatter, axis_name=taken, scatter_dimension=axis, tiled=True)
    first = ring if len(torus) < 3 else min(_SOLID, n // 2)
    if n <= ring or not first or n % first:
        return (scatter(whole),)
    near, far = _groups(n, n // first)
    return (scatter(scatter(whole, axis_index_groups=far), axis_index_groups=near),)


def _groups(n: int, size: int) -> tuple[list[list[int]], list[list[int]]]:
    """Groups of so many neighbours among n devices, and those that have the same place in theirs.

    >>> _groups(6, 2)
    ([[0, 1], [2, 3], [4, 5]], [[0, 2, 4], [1, 3, 5]])
    """
    near = [list(range(first, first + size)) for first in range(0, n, size)]
    return near, [list(range(first, n, size)) for first in range(size)]


_gathered.defvjp(lambda part, *how: (_gathered(part, *how), None), _scattered)
