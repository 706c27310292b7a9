"""Tables from logical axis names to mesh axes; models and steps name neither devices nor mesh axes.

A table is read from the top, and the first row with the name wins: rows that a configuration adds stand before those of
its preset. An axis that goes to no mesh axis is whole on every device.

| name | axis of |
| --- | --- |
| batch, positions | what is computed on: rows, and tokens of a row |
| vocab | embedding and unembedding: words |
| embed | every matrix: hidden states |
| heads, kv_heads | attention: query heads, and key and value heads; of their caches too |
| mlp | the feed-forward: its hidden units |
| norm | scales of norms |
| layers | parameters of all layers in one array |
"""

from __future__ import annotations

from collections.abc import Sequence

from glore_jax.configuration import nearest
from glore_jax.errors import InputError
from glore_jax.parallel.mesh import AXES

Table = tuple[tuple[str, tuple[str, ...]], ...]

_BATCH: Table = (("batch", ("data", "fsdp")), ("positions", ("sequence",)))
_FSDP: Table = (("embed", ("fsdp",)),)
_TENSOR: Table = tuple((name, ("tensor",)) for name in ("vocab", "heads", "kv_heads", "mlp"))
_WHOLE: Table = tuple((name, ()) for name in ("vocab", "embed", "heads", "kv_heads", "mlp", "norm", "layers"))
PRESETS: dict[str, Table] = {
    "replicated": (*_BATCH, *_WHOLE),  # every device has the whole model
    "fsdp": (*_BATCH, *_FSDP, *_WHOLE),  # a part of every matrix; a layer is gathered when its turn comes
    "tensor": (*_BATCH, *_TENSOR, *_WHOLE),  # some heads, hidden units and words of every layer, which it computes with
    "fsdp+tensor": (*_BATCH, *_FSDP, *_TENSOR, *_WHOLE),
}
SPREAD = {"replicated": "data", "fsdp": "fsdp", "tensor": "tensor", "fsdp+tensor": "fsdp"}  # takes what is left
NAMES = tuple(dict.fromkeys(name for name, _ in PRESETS["replicated"]))


def table(preset: str, added: Sequence[str] = ()) -> Table:
    """The table of a preset, behind the rows that a configuration adds.

    Args:
      added: rows as text, `NAME=AXIS`, `NAME=AXIS+AXIS`, or `NAME=none`.

    Raises:
      InputError: no such preset, logical name or mesh axis.

    >>> table("fsdp", ["embed=none", "vocab=fsdp+tensor"])[:2]
    (('embed', ()), ('vocab', ('fsdp', 'tensor')))
    """
    if preset not in PRESETS:
        raise InputError(f"sharding.preset={preset!r}: no such preset; {nearest(preset, PRESETS)}")
    return (*map(_row, added), *PRESETS[preset])


def _row(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, axes = text.partition("=")
    found = () if axes == "none" else tuple(axes.split("+"))
    if name not in NAMES:
        raise InputError(f"sharding.rules: {text!r} is of no axis of the model; {nearest(name, NAMES)}")
    if unknown := [axis for axis in found if axis not in AXES]:
        raise InputError(f"sharding.rules: {text!r}: no mesh axis {unknown[0]!r}; there are {', '.join(AXES)}, or none")
    return name, found


def axes_of(name: str, rows: Table) -> tuple[str, ...]:
    """The mesh axes of a logical name: those of the first row that has it."""
    found = next((axes for known, axes in rows if known == name), None)
    if found is None:
        raise ValueError(f"no rule for the axis {name!r}; there are rules for {', '.join(NAMES)}")
    return found
