"""Finished models as safetensors; `resuming` has the checkpoints of a training under way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from glore_jax.errors import InputError
from glore_jax.models import tensors
from glore_jax.models.tensors import Source, Tensor, Unread
from glore_jax.parallel import hosts


def save_model(path: Path, params: Any, config: dict[str, Any], dtype: str = "float32") -> None:
    """Writes a parameter tree and its model's configuration as one safetensors file.

    Every process of a job calls it, and the lead writes. Of parameters that are split over processes one at a time is
    whole, so that a host need not have room for the model.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    kept = np.dtype(dtype)

    def source(name: str) -> Source:
        return Source(
            name, kept, flat[name].shape, lambda: np.asarray(hosts.whole(flat[name])).astype(kept, copy=False)
        )

    sources = [source(name) for name in sorted(flat)]
    if hosts.lead():
        tensors.write(path, sources, metadata={"config": json.dumps(config)})
        return
    for each in sources:
        each.array()


def load_model(path: Path, dtype: Any = np.float32) -> tuple[Any, dict[str, Any]]:
    """Parameters (on the host) and configuration of `save_model`.

    Args:
      dtype: of the parameters; None: as the file has them.

    Raises:
      InputError: the file is missing, cut short or not such a model.
    """
    with _opened(path) as (file, config):
        flat = {name: np.asarray(file.get_tensor(name), dtype) for name in file.keys()}  # noqa: SIM118
    return unflatten_dict(flat, sep="/"), config


def unread(path: Path) -> tuple[Any, dict[str, Any]]:
    """As `load_model`, but each parameter is read when it is asked for (`tensors.Unread`)."""
    config, found = read_config(path), tensors.header(path)

    def later(where: Tensor) -> Unread:
        kept = np.dtype(np.float32)
        return Unread(where.shape, kept, lambda: tensors.read(where, [slice(None)] * len(where.shape), kept)[0])

    return unflatten_dict({name: later(where) for name, where in found.items()}, sep="/"), config


def load_parts(
    path: Path, lay: Callable[[dict[str, Any], Any], Any], dtype: Any = np.float32
) -> tuple[Any, dict[str, Any]]:
    """As `load_model`, straight to the devices: each one's part of each parameter is read by itself.

    Args:
      lay: says where parameters lie, from the configuration and the tree of their shapes.
    """
    config, found = read_config(path), tensors.header(path)
    shapes = {name: jax.ShapeDtypeStruct(where.shape, dtype) for name, where in found.items()}
    at: dict[str, Any] = flatten_dict(lay(config, unflatten_dict(shapes, sep="/")), sep="/")

    def place(name: str) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            return tensors.read(found[name], index, np.dtype(dtype))[0]

        return jax.make_array_from_callback(found[name].shape, at[name], part)

    return unflatten_dict({name: place(name) for name in found}, sep="/"), config


def read_config(path: Path) -> dict[str, Any]:
    """The configuration alone; InputError as of `load_model`."""
    with _opened(path) as (_, config):
        return config


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A file of `save_model`, and its configuration."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="flax") as file:
            yield file, json.loads((file.metadata() or {})["config"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path}: not a model of glore_jax or cut short ({error}); rebuild it with `glore run --from=STAGE`, "
            f"STAGE being the folder it lies in"
        ) from error
