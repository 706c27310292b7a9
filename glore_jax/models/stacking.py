"""Parameters of many layers in one array each, so that a scan computes deep models.

Of a decoder whose layers are alike, `attention_3/wq` becomes row 3 of `layers/attention_0/wq`. Where windows alternate
(Gemma) a period of layers is what repeats: with a period of 2, `layers/attention_1/wq` has those of layers 1, 3, 5, ...
Layers behind the last whole period keep their names. On disk and for decoding every layer is by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from glore_jax.models.decoder import DecoderConfig

LAYERS = "layers"
_WITH_LAYERS = ("decoder", "adapter")
_OF_LAYER = re.compile(r"(\w+)_(\d+)")


def period(config: DecoderConfig) -> int:
    """After how many layers the same kinds of layers come again."""
    windows = [config.window(i) for i in range(config.num_layers)]
    for p in range(1, config.num_layers // 2 + 1):
        whole = config.num_layers // p * p
        if all(windows[i] == windows[i % p] for i in range(whole)):
            return p
    return config.num_layers


def stack(tree: Any, config: DecoderConfig) -> Any:
    """A decoder's tree with its layers stacked.

    Args:
      tree: arrays, or in `jax.eval_shape` shapes, which may name their axes (`decoder.shapes`): the first axis of those
        that are stacked is `layers`.
    """
    out = group(tree, config)
    stacked = jax.tree.map(jnp.stack, out[LAYERS], is_leaf=lambda x: isinstance(x, tuple))
    return out | {LAYERS: nn.meta.add_axis(stacked, 0, {nn.PARTITION_NAME: LAYERS})}


def group(tree: Any, config: DecoderConfig) -> Any:
    """The same tree with tuples of arrays where `stack` has one array of them."""
    p = period(config)
    whole = config.num_layers // p * p
    out: dict[str, Any] = {}
    groups: dict[str, list[Any]] = {}
    for name, found in sorted(tree.items(), key=lambda item: _number(item[0])):
        if 0 <= (number := _number(name)) < whole:
            groups.setdefault(f"{_OF_LAYER.fullmatch(name)[1]}_{number % p}", []).append(found)  # pyright: ignore
        else:
            out[name] = found
    return out | {LAYERS: {name: jax.tree.map(lambda *xs: xs, *parts) for name, parts in groups.items()}}


def unstack(tree: Any) -> Any:
    """The inverse of `stack`; a tree without stacked layers stays as it is."""
    if LAYERS not in tree:
        return tree
    out = {name: found for name, found in tree.items() if name != LAYERS}
    p = 1 + max(_number(name) for name in tree[LAYERS])
    for name, group in tree[LAYERS].items():
        kind, j = _OF_LAYER.fullmatch(name).groups()  # pyright: ignore
        for i in range(jax.tree.leaves(group)[0].shape[0]):
            out[f"{kind}_{i * p + int(j)}"] = jax.tree.map(lambda x: x[i], group)  # noqa: B023
    return out


def stack_layers(params: Any, config: DecoderConfig, by: Callable = stack) -> Any:
    """What learns, or what stays, in a training (`training.adaptation`), with the layers in it stacked, or grouped."""
    return {name: by(tree, config) if name in _WITH_LAYERS else tree for name, tree in params.items()}


def unstack_layers(params: Any) -> Any:
    """The inverse of `stack_layers`."""
    return {name: unstack(tree) if name in _WITH_LAYERS else tree for name, tree in params.items()}


def _number(name: str) -> int:
    """Of a layer; -1 of what belongs to none."""
    found = _OF_LAYER.fullmatch(name)
    return int(found[2]) if found else -1
