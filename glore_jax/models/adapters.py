"""LoRA adapters from and to PEFT folders: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.models import huggingface, tensors
from glore_jax.models.decoder import CausalLM
from glore_jax.models.lora import LINEAR, LoraConfig
from glore_jax.models.tensors import Source, Tensor

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SIDES = {"a": "lora_A", "b": "lora_B"}
# What an adapter may also do, and this one does not.
_FIXED = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "fan_in_fan_out": False, "modules_to_save": None,
    "rank_pattern": {}, "alpha_pattern": {}, "lora_bias": False, "trainable_token_indices": None,
    "alora_invocation_tokens": None, "kasa_config": None,
}  # fmt: skip


def _modules(model: CausalLM) -> dict[str, tuple[str, tuple[int, int]]]:
    """For each linear layer of a decoder what PEFT calls it, and its [in, out]."""
    found = {}
    for path, weight in huggingface.shapes(model).items():
        name = path.rsplit("/", 1)[-1]
        if name in LINEAR:
            module = huggingface.stored_name(path, model.decoder.config).removesuffix(".weight")
            found[path] = module, weight.shape[::-1] if name == "unembedding" else weight.shape
    return found


def _stored_name(module: str, side: str) -> str:
    return f"base_model.model.{module}.{_SIDES[side]}.weight"


def _frozen_name(module: str) -> str:
    return f"base_model.model.{module}.base_layer.weight"


def load(folder: str | Path, model: CausalLM) -> tuple[LoraConfig, Any]:
    """An adapter for a model; `lora.merge` puts it in.

    Raises:
      InputError: settings other than plain LoRA, or tensors missing, left over, of other shapes, or with NaNs or
        infinities; all are listed.
    """
    folder = Path(folder)
    config, found = _found(folder, model)
    adapter: dict[str, Any] = {}
    problems: list[str] = []
    for path, (name, where) in found.items():
        array, finite = tensors.read(where, [slice(None)] * len(where.shape), tensors.DTYPES[where.dtype])
        problems += [f"{name} {tensors.NOT_FINITE}"] * (not finite)
        adapter[path] = jnp.asarray(array.T)
    if problems:
        raise _unusable(folder, problems)
    return config, unflatten_dict(adapter, sep="/")


def describe(folder: str | Path, model: CausalLM) -> LoraConfig:
    """What an adapter changes of a model, its weights unread; InputError as of `load`, but for what the numbers are."""
    return _found(Path(folder), model)[0]


def _found(folder: Path, model: CausalLM) -> tuple[LoraConfig, dict[str, tuple[str, Tensor]]]:
    """An adapter's settings, and the name and place of its tensors by their paths in our tree."""
    stored = tensors.find(folder, WEIGHTS)
    raw = tensors.read_json(folder / SETTINGS)
    problems = [
        f"{SETTINGS}: {key} is {raw[key]}; expected {value}"
        for key, value in _FIXED.items()
        if raw.get(key) and raw[key] != value
    ]
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        problems.append(f"{SETTINGS}: r is {rank} and lora_alpha {alpha}; expected two positive numbers")
        raise _unusable(folder, problems)
    wanted = {
        f"{path}/{side}": (_stored_name(module, side), (outputs, rank) if side == "b" else (rank, inputs))
        for path, (module, (inputs, outputs)) in _modules(model).items()
        for side in _SIDES
        if _is_target(module, raw) or any(_stored_name(module, s) in stored for s in _SIDES)
    }
    # With an adapted unembedding peft writes the frozen one too; the model has it.
    frozen = {_frozen_name(module): sizes[::-1] for module, sizes in _modules(model).values()}
    stored = {name: where for name, where in stored.items() if frozen.get(name) != where.shape}
    problems += _differences(wanted, stored)
    if problems:
        raise _unusable(folder, problems)
    # Rank-stabilised adapters are scaled by alpha / sqrt(rank).
    alpha = float(alpha) * (rank**0.5 if raw.get("use_rslora") else 1.0)
    return LoraConfig(rank, alpha, _targets(wanted)), {path: (name, stored[name]) for path, (name, _) in wanted.items()}


def _is_target(module: str, raw: dict[str, Any]) -> bool:
    """Whether the settings say by name that a layer is adapted; a pattern, or a choice of layers, says nothing here."""
    names = raw.get("target_modules")
    if not isinstance(names, list) or raw.get("layers_to_transform") is not None or raw.get("exclude_modules"):
        return False
    return any(module == name or module.endswith(f".{name}") for name in names)


def _differences(wanted: dict[str, tuple[str, tuple[int, ...]]], stored: dict[str, Tensor]) -> Iterator[str]:
    for name, shape in wanted.values():
        if name not in stored:
            yield f"missing tensor {name} {list(shape)}"
        elif stored[name].shape != shape:
            yield f"{name} has shape {list(stored[name].shape)}, expected {list(shape)}"
    for name in sorted(set(stored) - {name for name, _ in wanted.values()}):
        yield f"unexpected tensor {name} {list(stored[name].shape)}"
    if not stored:
        yield "no tensors at all"


def _unusable(folder: Path, problems: list[str]) -> InputError:
    lines = "".join(f"\n  {problem}" for problem in problems)
    return InputError(f"{folder}: cannot be used as an adapter of this model:{lines}\ngive one that was made for it")


def _targets(paths: Iterable[str]) -> tuple[str, ...]:
    """Which of `LINEAR` an adapter changes."""
    names = {path.split("/")[-2] for path in paths}
    return tuple(name for name in LINEAR if name in names)


def save(config: LoraConfig, adapter: Any, folder: str | Path, model: CausalLM) -> None:
    """Writes an adapter as a folder that `load` and `peft` read, whole or not at all.

    Raises:
      InputError: the folder is taken or not writable.
      ValueError: the adapter has layers that the model has not.
    """
    flat: dict[str, Any] = flatten_dict(adapter, sep="/")
    modules = _modules(model)
    if odd := {path.rsplit("/", 1)[0] for path in flat} - set(modules):
        raise ValueError(f"the model has no linear layers {sorted(odd)}")
    sources = [
        Source(
            _stored_name(modules[path.rsplit("/", 1)[0]][0], path[-1]),
            array.dtype,
            array.shape[::-1],
            lambda a=array: np.asarray(a).T,
        )
        for path, array in flat.items()
    ]
    changed = {module: path.rsplit("/", 1)[-1] for path, (module, _) in modules.items() if f"{path}/a" in flat}
    whole = all(f"{path}/a" in flat for path in modules if path.rsplit("/", 1)[-1] in changed.values())
    raw = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        # By kind where every layer has one, else one by one.
        "target_modules": sorted({module.rsplit(".", 1)[-1] for module in changed} if whole else changed),
        "inference_mode": True,
    }
    with files.new_folder(Path(folder)) as partial:
        tensors.write(partial / WEIGHTS, sources)
        files.write_json(partial / SETTINGS, raw)
