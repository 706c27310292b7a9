"""LoRA (Hu et al., 2022): a linear layer W learns as W + scale * A B, with A and B of a small rank.

An adapter is a tree like the parameters that has, for each layer it changes, `{"a": [in, rank], "b": [rank, out]}`
in the place of the layer. A model with an adapter is the model with `merge(params, adapter, config)`: in training
inside the loss, so that gradients reach the adapter alone, and once where the model leaves.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

ATTENTION, FEED_FORWARD = ("wq", "wk", "wv", "wo"), ("gate", "up", "down")
LINEAR = (*ATTENTION, *FEED_FORWARD, "unembedding")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Attributes: rank; alpha (the scale is alpha / rank); targets (which linear layers, of `LINEAR`)."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ATTENTION

    def __post_init__(self):
        if unknown := set(self.targets) - set(LINEAR):
            raise ValueError(f"targets {sorted(unknown)} are no linear layers; there are {', '.join(LINEAR)}")
        if self.rank < 1:
            raise ValueError(f"rank={self.rank} must be at least 1")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def init(rng: jax.Array, params: Any, config: LoraConfig) -> Any:
    """An adapter that changes nothing yet: A is random of variance 1 / in, B is zero. All float32.

    Args:
      params: whose layers named in `config.targets` get one; arrays or their shapes.
    """
    adapter: dict[str, Any] = {}
    layers: dict[str, Any] = flatten_dict(params, sep="/")
    for path, weight in layers.items():
        name = path.rsplit("/", 1)[-1]
        if name in config.targets:
            inputs, outputs = weight.shape[::-1] if name == "unembedding" else weight.shape
            key = jax.random.fold_in(rng, zlib.crc32(path.encode()))
            adapter[f"{path}/a"] = inputs**-0.5 * jax.random.normal(key, (inputs, config.rank))
            adapter[f"{path}/b"] = jnp.zeros((config.rank, outputs))
    return unflatten_dict(adapter, sep="/")


def merge(params: Any, adapter: Any, config: LoraConfig) -> Any:
    """Parameters with the adapter's changes in them: summed in float32, of the parameters' types."""
    merged: dict[str, Any] = flatten_dict(params, sep="/")
    changes: dict[str, Any] = flatten_dict(adapter, sep="/")
    for path in dict.fromkeys(path.rsplit("/", 1)[0] for path in changes):
        weight = merged[path]
        change = changes[f"{path}/a"].astype(jnp.float32) @ changes[f"{path}/b"].astype(jnp.float32)
        change = change.T if path.endswith("unembedding") else change  # [vocabulary, model], as torch has it
        merged[path] = (weight.astype(jnp.float32) + config.scale * change).astype(weight.dtype)
    return unflatten_dict(merged, sep="/")
