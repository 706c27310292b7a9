"""`glore convert`: models between Hugging Face folders and Orbax checkpoints, and out of the folders of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import SingleDeviceSharding

from glore_jax import files, progress
from glore_jax.errors import InputError
from glore_jax.models import families, huggingface, orbax_folders, tensors
from glore_jax.models.decoder import CausalLM, Decoder, DecoderConfig
from glore_jax.models.huggingface import Model
from glore_jax.models.value_head import ValueModel
from glore_jax.stages import artifacts
from glore_jax.text import pretrained
from glore_jax.training import checkpoints


def convert(source: Path, target: Path) -> None:
    """Writes the model of a folder as a folder of the other kind, whole or not at all.

    Args:
      source: of Hugging Face becomes one of Orbax; of Orbax, as this command makes it, or of a stage of a run
        becomes one of Hugging Face.
      target: a new or empty folder.

    Raises:
      InputError: the source is none of these, damaged or not finite, no Hugging Face folder can hold its model, or the
        target is taken.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give one of Hugging Face, of Orbax or of a stage, as RUN/sorm")
    files.check_new(target)
    if source.resolve() == target.with_name(target.name + files.PARTIAL).resolve():
        raise InputError(f"{source}: it would be written over while {target} is made; give another target")
    if orbax_folders.is_ours(source):
        model, params = _from_orbax(source, target)
    elif orbax_folders.is_foreign(source):
        raise InputError(
            f"{source}: an Orbax checkpoint that `glore convert` did not make: no {orbax_folders.MODEL} says what "
            "model it is; convert the Hugging Face folder that it came from, or the folder of a stage, as RUN/sorm"
        )
    elif (source / artifacts.MODEL).is_file() and not (source / "config.json").is_file():
        model, params = _from_stage(source, target)
    else:
        model, params = _from_hugging_face(source, target)
    kind = "a value model" if isinstance(model, ValueModel) else "a language model"
    count = sum(x.size for x in jax.tree.leaves(params))
    progress.say(f"{target}: {kind} of {progress.number(count)} parameters")


def _on_host() -> SingleDeviceSharding:
    return SingleDeviceSharding(jax.devices("cpu")[0])


def _from_hugging_face(source: Path, target: Path) -> tuple[Model, Any]:
    count = len(huggingface.shapes(huggingface.describe(source)))
    with progress.track(2 * count, "tensors", f"{source}, read and written as Orbax") as bar:
        model, params = huggingface.load(source, sharding=_on_host(), advance=bar.advance)
        tokenizer = source if huggingface.tokenizer_files(source) else None
        orbax_folders.save(model, params, target, tokenizer)
        bar.advance(count)
    return model, params


def _from_orbax(source: Path, target: Path) -> tuple[Model, Any]:
    model, dtypes = orbax_folders.describe(source)
    _check_exportable(source, model, dtypes)
    with progress.track(2 * len(dtypes), "tensors", f"{source}, read and written for Hugging Face") as bar:
        _, params = orbax_folders.load(source, _on_host())
        _check_finite(source, flatten_dict(params, sep="/"))
        bar.advance(len(dtypes))
        place = source / orbax_folders.TOKENIZER
        huggingface.save(model, params, target, place if place.is_dir() else None, advance=bar.advance)
    return model, params


def _from_stage(source: Path, target: Path) -> tuple[Model, Any]:
    """Of a stage's folder; its tokenizer lies there, or in the folder `base` beside it."""
    try:
        params, raw = checkpoints.load_model(source / artifacts.MODEL, dtype=None)
    except InputError as error:
        raise InputError(f"{source}: weights, but no config.json, so expected those of a stage; {error}") from error
    decoder = Decoder(DecoderConfig(**raw))
    model = ValueModel(decoder) if "value_head" in params else CausalLM(decoder)
    params = params if isinstance(model, ValueModel) else params["decoder"]
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    _check_exportable(source, model, flat)
    _check_finite(source, flat)
    places = (place for place in (source, source.resolve().parent / "base") if pretrained.holds(place))
    place, ids = next(places, None), {}
    if place is not None:
        tokenizer = pretrained.reopen(place)
        ids = {"eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    with progress.track(len(flat), "tensors", f"{source}, written for Hugging Face") as bar:
        huggingface.save(model, params, target, place, token_ids=ids, advance=bar.advance)
    return model, params


def _check_finite(source: Path, flat: dict[str, Any]) -> None:
    """InputError where weights are no numbers: whoever is given them would meet that only in what they compute."""
    if bad := [path for path, array in flat.items() if not np.isfinite(np.asarray(array)).all()]:
        lines = "".join(f"\n  {path} {tensors.NOT_FINITE}" for path in bad)
        raise InputError(f"{source}: cannot be used as a model:{lines}\ntrain or copy it anew, or give another one")


def _check_exportable(source: Path, model: Model, paths: Any) -> None:
    """InputError where no Hugging Face folder can hold a model; `paths` are those of its parameters."""
    if "value_head/gate" in paths:
        raise InputError(
            f"{source}: its value head also reads the surprise at each token, which transformers has no class for; "
            "train with --config.value.surprise=False to export"
        )
    try:
        families.write(model.decoder.config, families.VALUE if isinstance(model, ValueModel) else families.CAUSAL, "")
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
