"""The optimizer: AdamW or Muon, warm-up, then a cosine to zero, gradients clipped."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from glore_jax.errors import InputError
from glore_jax.models import stacking

_MOMENTS = ("float32", "bfloat16")


def make(settings: Any, total_steps: int) -> optax.GradientTransformation:
    """Builds the optimizer of a training.

    Args:
      settings: `optimizer` (`adamw` or `muon`), `learning_rate`, `warmup` (share of the steps),
        `weight_decay`, `clip` (of the global norm), `moments` (as what they are kept: `float32` or `bfloat16`).
      total_steps: length of the training.
    """
    warmup = max(1, round(settings.warmup * total_steps))
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, max(total_steps, warmup + 1))
    if settings.optimizer == "adamw":
        update = optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=settings.weight_decay, mask=_matrices)
    elif settings.optimizer == "muon":
        # Matrices of the layers by Muon; embeddings, norms and heads by AdamW at 0.3 of the rate.
        update = optax.contrib.muon(
            schedule,
            weight_decay=settings.weight_decay,
            adam_learning_rate=lambda step: 0.3 * schedule(step),
            adam_b2=0.98,
            muon_weight_dimension_numbers=_muon_dimensions,
        )
    else:
        raise InputError(f"unknown optimizer {settings.optimizer!r}; there are adamw and muon")
    if settings.moments not in _MOMENTS:
        raise InputError(f"unknown moments {settings.moments!r}; there are {' and '.join(_MOMENTS)}")
    return optax.chain(optax.clip_by_global_norm(settings.clip), _kept_as(settings.moments, update))


def _kept_as(dtype: str, update: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer, which computes in float32 and keeps its moments in another type between two steps."""

    def cast(state: Any, to: str) -> Any:
        return jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim else x, state)

    def init(params: Any) -> Any:
        return cast(update.init(params), dtype)

    def step(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = update.update(updates, cast(state, "float32"), params)
        return updates, cast(state, dtype)

    return update if dtype == "float32" else optax.GradientTransformation(init, step)


def _matrices(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim - _stacked(path) >= 2, params)


def _muon_dimensions(params: Any) -> Any:
    def dimensions(path: Any, leaf: Any) -> Any:
        first = _stacked(path)
        inside = leaf.ndim - first == 2 and not _names(path) & {"embedding", "unembedding"}
        return optax.contrib.MuonDimensionNumbers(first, first + 1) if inside else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _names(path: Any) -> set[Any]:
    return {getattr(key, "key", None) for key in path}


def _stacked(path: Any) -> int:
    """1 of arrays whose first axis is that of layers (`models.stacking`), else 0."""
    return int(stacking.LAYERS in _names(path))
