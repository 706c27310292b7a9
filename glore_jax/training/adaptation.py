"""What of a model learns in a training: everything, or a LoRA adapter and what no base model has learnt.

With an adapter the decoder's parameters are held once, as they are, without gradients and moments. Beside the adapter
learns what has nothing behind it that could stay: the value head, and the rows of the marks in the embedding and the
unembedding. New rows all begin as the mean of the others (`models.vocabulary`): as long as they stayed so, `[BAD]` and
`[DRAFT]` would be one and the same to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from glore_jax.configuration import nearest
from glore_jax.errors import InputError
from glore_jax.models import lora, vocabulary
from glore_jax.models.lora import LoraConfig


def config_of(settings: Any, decoder: Any, name: str = "train") -> LoraConfig | None:
    """The adapter that the settings of a training ask for; None where everything learns.

    Args:
      settings: `lora.rank` (0: no adapter), `lora.alpha` and `lora.layers`; settings without `lora` ask for none.
      decoder: its parameters, or their shapes.
      name: of the settings in the configuration, for errors.

    Raises:
      InputError: no such layers in this decoder, or a rank larger than one of them.
    """
    group = settings.get("lora")
    if group is None or group.rank == 0:
        return None
    flat: dict[str, Any] = flatten_dict(decoder, sep="/")
    shapes = {path.rsplit("/", 1)[-1]: weight.shape for path, weight in flat.items()}
    shapes = {layer: shape for layer, shape in shapes.items() if layer in lora.LINEAR}
    if not group.layers:
        raise InputError(f"{name}.lora.layers: none; give some of {','.join(shapes)}, or set {name}.lora.rank=0")
    for layer in group.layers:
        if layer not in shapes:
            raise InputError(f"{name}.lora.layers: the model has no linear layer {layer!r}; {nearest(layer, shapes)}")
        if not 1 <= group.rank <= min(shapes[layer]):
            sizes = " x ".join(map(str, shapes[layer]))
            raise InputError(
                f"{name}.lora.rank={group.rank}: the layer {layer} is {sizes}; expected 1 to {min(shapes[layer])}, or "
                "0 for no adapter"
            )
    return LoraConfig(group.rank, float(group.alpha), tuple(group.layers))


def split(params: Any, config: LoraConfig | None, marks: Sequence[int], rng: jax.Array) -> tuple[Any, Any]:
    """What learns, and what stays; `join` puts them together, at first to what `params` compute.

    Args:
      params: `{"decoder": ...}` and heads.
      marks: ids whose rows of the tables learn beside an adapter.
    """
    if config is None:
        return params, {}
    heads = {name: head for name, head in params.items() if name != "decoder"}
    decoder = params["decoder"]
    trained = heads | {"adapter": lora.init(rng, decoder, config)}
    if marks:
        ids = np.asarray(marks, np.int32)
        trained["rows"] = {name: decoder[name][ids] for name in vocabulary.TABLES if name in decoder}
    return trained, {"decoder": decoder}


def join(trained: Any, frozen: Any, config: LoraConfig | None = None, marks: Sequence[int] = ()) -> Any:
    """The parameters of the model, as a loss and later stages want them: `{"decoder": ...}` and heads."""
    if config is None:
        return trained
    decoder = lora.merge(frozen["decoder"], trained["adapter"], config)
    for name, rows in trained.get("rows", {}).items():
        table = jnp.asarray(decoder[name])
        decoder[name] = table.at[np.asarray(marks, np.int32)].set(rows.astype(table.dtype))
    heads = {name: head for name, head in trained.items() if name not in ("adapter", "rows")}
    return {"decoder": decoder} | heads
