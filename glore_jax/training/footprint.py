"""What a training takes on each device, counted on shapes before anything is made."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from glore_jax.models import layout, next_token
from glore_jax.models.decoder import Decoder
from glore_jax.models.execution import Execution
from glore_jax.models.lora import LoraConfig
from glore_jax.parallel import programs
from glore_jax.parallel.placement import Placement
from glore_jax.training import adaptation, batches, optimizer, train_step


def footprint(
    model: Decoder, params: Any, settings: Any, place: Placement, marks: Sequence[int] = (), name: str = "train"
) -> dict[str, int]:
    """Bytes on each device, by what they are for; activations but for the logits are not counted.

    Args:
      params: shapes of what the training starts from; as others of `loop.train`.
      name: of the settings in the configuration, for errors.

    Raises:
      InputError: the model cannot be split so, or cannot have the adapter that is asked for.
    """
    lora = adaptation.config_of(settings, params["decoder"], name)
    split = functools.partial(adaptation.split, config=lora, marks=tuple(marks))
    learning, frozen = jax.eval_shape(split, params, rng=jax.random.key(0))
    tx = optimizer.make(settings, 1)
    state = jax.eval_shape(lambda params: train_step.init(params, tx), learning)
    at = train_step.shardings(layout.named(model, learning), tx, place)
    stays = _each(frozen, layout.shardings(model, frozen, place))
    learns = _each(learning, at.params)
    batch = batches.shapes(settings.rows, settings.row_length)
    parts = {"parameters": learns + stays, "gradients": learns}
    parts["optimizer"] = _each(state.opt_state, at.opt_state)
    parts["batch"] = programs.bytes_of(programs.shapes(batch, place.at("batch", "positions")))
    rows = settings.rows // (place.parts("batch") * settings.micro_batches)
    tokens, words = settings.row_length // place.parts("positions"), model.config.vocab_size
    positions = next_token.chunk(tokens, rows, words, Execution(place).platform)
    parts["logits"] = rows * positions * words // place.parts("vocab") * 4
    if lora:
        parts["merged layers"] = _merged(frozen["decoder"], layout.shardings(model, frozen, place), lora, model)
    return parts


def _each(tree: Any, at: Any) -> int:
    return programs.bytes_of(programs.shapes(tree, at))


def _merged(decoder: Any, at: Any, lora: LoraConfig, model: Decoder) -> int:
    """Of the layers that an adapter changes, as they are computed with."""
    itemsize = jax.numpy.dtype(model.config.dtype).itemsize
    weights: dict[str, Any] = flatten_dict(decoder, sep="/")
    places: dict[str, Any] = flatten_dict(at["decoder"], sep="/")
    changed = {path: weight for path, weight in weights.items() if path.rsplit("/", 1)[-1] in lora.targets}
    return sum(_each(w, places[path]) // w.dtype.itemsize for path, w in changed.items()) * itemsize
