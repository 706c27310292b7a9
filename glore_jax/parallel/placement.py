"""Where arrays lie: a mesh of devices and a table of rules, made from the group `sharding` of a configuration.

It is handed down to whatever puts arrays on devices. What is computed does not depend on it, so a run can go on under
another one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.errors import InputError
from glore_jax.parallel import mesh as meshes
from glore_jax.parallel import rules


@dataclasses.dataclass(frozen=True)
class Placement:
    """Attributes: mesh (the devices), table (see `rules`). Mesh axes that the mesh lacks split nothing."""

    mesh: Mesh
    table: rules.Table = rules.PRESETS["replicated"]

    def axes(self, name: str | None) -> tuple[str, ...]:
        """The mesh axes of more than one device that a logical axis is split over."""
        found = () if name is None else rules.axes_of(name, self.table)
        return tuple(axis for axis in found if self.mesh.shape.get(axis, 1) > 1)

    def parts(self, name: str | None) -> int:
        """How many parts a logical axis is split into."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes(name))

    def at(self, *names: str | None) -> NamedSharding:
        """The sharding of an array with these logical axes; axes that come after them are whole.

        Raises:
          InputError: two of them go to one mesh axis.
        """
        taken: dict[str, str | None] = {}
        for name in names:
            for axis in self.axes(name):
                if axis in taken:
                    raise InputError(
                        f"sharding: {taken[axis]} and {name} of one array [{', '.join(map(str, names))}] both go to "
                        f"the mesh axis {axis}={self.mesh.shape[axis]}; set one of them in sharding.rules, e.g. "
                        f"{name}=none"
                    )
                taken[axis] = name
        found = [axes[0] if len(axes) == 1 else axes or None for axes in map(self.axes, names)]
        while found and found[-1] is None:  # one way to say it, so that equal shardings compare equal
            found.pop()
        return NamedSharding(self.mesh, P(*found))

    def constrain(self, x: jax.Array, *names: str | None) -> jax.Array:
        """An array of a jitted function, which is split so from here on."""
        return jax.lax.with_sharding_constraint(x, self.at(*names))

    @property
    def whole(self) -> NamedSharding:
        """Of an array that every device has all of."""
        return NamedSharding(self.mesh, P())

    def of_params(self, boxed: Any) -> Any:
        """Shardings of a tree of parameters, or shapes, that carry logical axis names.

        Raises:
          InputError: two axes of a parameter go to one mesh axis, or one does not divide by the devices it goes to.
        """

        def place(path: Any, leaf: Any) -> Any:
            if not isinstance(leaf, nn.LogicallyPartitioned):
                return self.whole
            found = self.at(*leaf.names)
            for array in jax.tree.leaves(leaf.value):  # none where an optimizer leaves a parameter out
                for name, size in zip(leaf.names, array.shape, strict=True):
                    self.check(f"{name} in {jax.tree_util.keystr(path, simple=True, separator='/')}", name, size)
            return jax.tree.map(lambda array: found, leaf.value)

        return jax.tree_util.tree_map_with_path(place, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))

    def check_units(self, units: Mapping[str, int]) -> None:
        """InputError where an axis of a model cannot be split as the table says; `DecoderConfig.units` counts them."""
        for name, size in units.items():
            self.check(name, name, size)

    def check(self, what: str, name: str | None, size: int) -> None:
        """InputError where an axis of the model, of this size, does not divide by the devices it is split over.

        Args:
          what: it is, for the error.
        """
        if size % self.parts(name):
            listed = " x ".join(f"sharding.{axis}={self.mesh.shape[axis]}" for axis in self.axes(name))
            raise InputError(
                f"sharding: {what} has {size} parts, which do not divide by {listed}; choose a divisor of {size}, or "
                f"keep it whole with --config.sharding.rules={name}=none"
            )

    def check_rows(self, key: str, rows: int, micro_batches: int = 1) -> None:
        """InputError where a batch of so many rows cannot be split.

        Args:
          key: of the configuration, that says how many rows.
          micro_batches: that it is computed in, one after the other.
        """
        devices = self.parts("batch")
        least = devices * micro_batches
        if micro_batches < 1:
            raise InputError(f"{key.rpartition('.')[0]}.micro_batches={micro_batches}: expected 1 or more")
        if rows % least or rows < 1:
            times = f", in {micro_batches} micro-batches" if micro_batches > 1 else ""
            raise InputError(
                f"{key}={rows} does not divide by the {devices} devices that rows are split over{times}; make it a "
                f"multiple of {least}, e.g. {key}={max(least, rows // least * least)}, or split them over fewer "
                "(`devices`, or sharding.data and sharding.fsdp)"
            )

    def put(self, batch: Any, *names: str) -> Any:
        """Host arrays [B, ...] on the devices, rows split; or arrays with these logical axes.

        Every process of a job hands in the same arrays, and puts the rows of its own devices there.
        """
        sharding = self.at(*names or ("batch",))
        return lay(batch, jax.tree.map(lambda x: sharding, batch))

    def of_process(self) -> Placement:
        """The same on the devices of this process alone, if these can hold what `tensor` and `sequence` split."""
        devices = self.mesh.local_devices
        kept = self.mesh.shape.get("tensor", 1) * self.mesh.shape.get("sequence", 1)
        if len(devices) == self.mesh.size or len(devices) % kept:
            return self
        rows = len(devices) // kept
        fsdp = math.gcd(self.mesh.shape.get("fsdp", 1), rows)
        asked = {**self.mesh.shape, "data": rows // fsdp, "fsdp": fsdp}
        return Placement(meshes.make(asked, devices=devices), self.table)

    def keeping(self, *names: str) -> Placement:
        """The same with some logical axes whole."""
        return Placement(self.mesh, (*((name, ()) for name in names), *self.table))


def lay(tree: Any, shardings: Any) -> Any:
    """Arrays that every process of a job has whole, each put on those devices of its sharding that are its own.

    Arrays that lie in parts on the devices of all processes are split anew; what lies right already stays.
    """
    if all(sharding.is_fully_addressable for sharding in jax.tree.leaves(shardings)):
        return jax.device_put(tree, shardings)

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, sharding)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree, shardings)


def make(
    settings: Mapping[str, Any] | None = None, devices: Sequence[Any] | None = None, sampling: bool = False
) -> Placement:
    """A placement on all devices.

    Args:
      settings: the group `sharding`: `preset`, `rules` (see `rules.table`), `sampling` (another preset for that), and
        how many devices each axis has (see `mesh.make`); None: rows split over all devices, which have the whole model
        each.
      devices: others than those here, to compile for.
      sampling: whether it is for sampling, or reading values, and not for training.

    Raises:
      InputError: an unknown preset or rule, sizes that do not come to the number of devices, or devices on an axis that
        nothing is split over.
    """
    if settings is None:
        return Placement(meshes.make(devices=devices))
    preset = settings["preset"]
    table = rules.table((settings["sampling"] if sampling else "") or preset, settings["rules"])
    asked = {axis: settings[axis] for axis in meshes.AXES}
    if preset == "fsdp+tensor" and not asked["tensor"]:
        raise InputError("sharding.preset='fsdp+tensor': say how many devices tensor takes, e.g. sharding.tensor=2")
    mesh = meshes.make(asked, rules.SPREAD[preset], devices)
    used = {axis for name in rules.NAMES for axis in rules.axes_of(name, table)}
    if idle := {axis: size for axis, size in mesh.shape.items() if size > 1 and axis not in used}:
        axis, size = next(iter(idle.items()))
        key = "sampling" if sampling and settings["sampling"] else "preset"
        raise InputError(
            f"sharding.{axis}={size}: with sharding.{key}={settings[key]} nothing is split over {axis}, so {size} "
            f"devices would compute the same; set sharding.{axis}=1, or another one ({', '.join(rules.PRESETS)})"
        )
    return Placement(mesh, table)
