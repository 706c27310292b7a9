"""Models as Orbax checkpoints, for other JAX code; `glore convert` makes them of Hugging Face folders, and back.

    FOLDER/glore_model.json   what it is: a language or a value model, its sizes, the types of its tensors
    FOLDER/params/            the parameters, a tree as `StandardCheckpointer` saves and restores it
    FOLDER/tokenizer/         the tokenizer's files, generation settings and token ids, where there were any

A folder comes into being by one rename, so it is whole or absent.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.models import huggingface, tensors
from glore_jax.models.decoder import CausalLM, Decoder, DecoderConfig
from glore_jax.models.huggingface import Model
from glore_jax.models.value_head import ValueModel

MODEL, PARAMS, TOKENIZER = "glore_model.json", "params", "tokenizer"
_KINDS: dict[str, Any] = {"language": CausalLM, "value": ValueModel}
_ORBAX = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")  # some of these lie in every checkpoint
_CONCURRENT_GB = 1  # that Orbax has in its hands at a time, beside the parameters


def is_ours(folder: Path) -> bool:
    return (folder / MODEL).is_file()


def is_foreign(folder: Path) -> bool:
    """Whether a folder is an Orbax checkpoint, or holds one, and nothing says of which model."""
    places = [folder, *(path for path in folder.glob("*") if path.is_dir())]
    return not is_ours(folder) and any((place / name).exists() for place in places for name in _ORBAX)


def save(model: Model, params: Any, folder: Path, tokenizer: Path | None = None) -> None:
    """Writes a model as a folder that `load` reads, whole or not at all.

    Args:
      model, params: as `huggingface.load` returns them.
      folder: a new or empty one.
      tokenizer: a folder whose tokenizer files go along.

    Raises:
      InputError: the folder is taken or not writable.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    described = {
        "kind": next(kind for kind, made in _KINDS.items() if isinstance(model, made)),
        "config": dataclasses.asdict(model.decoder.config),
        "dtypes": {path: str(array.dtype) for path, array in sorted(flat.items())},
    }
    with files.new_folder(folder) as partial:
        with _checkpointer() as checkpointer:
            checkpointer.save((partial / PARAMS).resolve(), args=ocp.args.StandardSave(params))
        if tokenizer is not None:
            (partial / TOKENIZER).mkdir()
            ids = huggingface.copy_tokenizer(tokenizer, partial / TOKENIZER)
            files.write_json(partial / TOKENIZER / "config.json", ids)
        files.write_json(partial / MODEL, described)


def describe(folder: Path) -> tuple[Model, dict[str, np.dtype]]:
    """The model of a folder and the types of its parameters by path, its weights unread.

    Raises:
      InputError: `glore_model.json` is none of `save`.
    """
    raw = tensors.read_json(folder / MODEL)
    try:
        model = _KINDS[raw["kind"]](Decoder(DecoderConfig(**raw["config"])))
        return model, {path: jnp.dtype(raw["dtypes"][path]) for path in huggingface.shapes(model)}
    except (KeyError, TypeError, ValueError) as error:
        what = f"not as `glore convert` writes it ({type(error).__name__}: {error})"
        raise InputError(f"{folder / MODEL}: {what}; convert the model anew") from error


def load(folder: Path, sharding: Sharding) -> tuple[Model, Any]:
    """A model and its parameters, restored straight to where they shall lie.

    Raises:
      InputError: not a folder of `save`, or its checkpoint is not whole.
    """
    model, dtypes = describe(folder)
    target = {
        path: jax.ShapeDtypeStruct(shape.shape, dtypes[path], sharding=sharding)
        for path, shape in huggingface.shapes(model).items()
    }
    try:
        with _checkpointer() as checkpointer:
            args = ocp.args.StandardRestore(unflatten_dict(target, sep="/"))
            return model, checkpointer.restore((folder / PARAMS).resolve(), args=args)
    except Exception as error:  # which is all that Orbax calls a file that cannot be read
        first = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{folder / PARAMS}: not the whole checkpoint of the model in {MODEL} ({first}); convert the model anew"
        ) from error


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(
        ocp.StandardCheckpointHandler(save_concurrent_gb=_CONCURRENT_GB, restore_concurrent_gb=_CONCURRENT_GB)
    )
