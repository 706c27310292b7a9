"""Models from and to Hugging Face folders: `config.json` and safetensors, in the names that transformers uses.

A language model is a `...ForCausalLM` folder. A value model is a `...ForTokenClassification` folder with the labels
`wrong` and `right`: so are process reward models trained (TRL's PRMTrainer) and read, with
`softmax(logits)[..., 1]` as the probability at a step end. The one logit z of the value head becomes the pair
(0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)).

Nothing in a folder is run: pickled weights are refused, and code beside the weights is not looked at.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.models import families, tensors
from glore_jax.models.decoder import CausalLM, Decoder, DecoderConfig
from glore_jax.models.tensors import Advance, Source, Tensor, Unread
from glore_jax.models.value_head import ValueModel
from glore_jax.parallel.placement import Placement
from glore_jax.text.vocabularies import SentencePiece

Model = CausalLM | ValueModel
LABELS = {"0": "wrong", "1": "right"}
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model")  # the first of them counts
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_OUTSIDE = {
    "embedding": "model.embed_tokens.weight",
    "unembedding": "lm_head.weight",
    "final_norm/scale": "model.norm.weight",
}
_LAYER = {
    "attention/wq": "self_attn.q_proj.weight",
    "attention/wk": "self_attn.k_proj.weight",
    "attention/wv": "self_attn.v_proj.weight",
    "attention/wo": "self_attn.o_proj.weight",
    "attention/bq": "self_attn.q_proj.bias",
    "attention/bk": "self_attn.k_proj.bias",
    "attention/bv": "self_attn.v_proj.bias",
    "attention/q_norm/scale": "self_attn.q_norm.weight",
    "attention/k_norm/scale": "self_attn.k_norm.weight",
    "mlp/gate": "mlp.gate_proj.weight",
    "mlp/up": "mlp.up_proj.weight",
    "mlp/down": "mlp.down_proj.weight",
    "attention_norm/scale": "input_layernorm.weight",
}
# The Llama shape calls the norm before the feed-forward by what it comes after; with post norms there are four.
_NORMS = {
    False: {"mlp_norm/scale": "post_attention_layernorm.weight"},
    True: {
        "post_attention_norm/scale": "post_attention_layernorm.weight",
        "mlp_norm/scale": "pre_feedforward_layernorm.weight",
        "post_mlp_norm/scale": "post_feedforward_layernorm.weight",
    },
}


def stored_name(path: str, config: DecoderConfig) -> str:
    """What transformers calls a parameter of the decoder.

    >>> stored_name("attention_3/wq", DecoderConfig(vocab_size=8))
    'model.layers.3.self_attn.q_proj.weight'
    """
    if path in _OUTSIDE:
        return _OUTSIDE[path]
    module, rest = path.split("/", 1)
    kind, layer = module.rsplit("_", 1)
    return f"model.layers.{layer}.{(_LAYER | _NORMS[config.post_norms])[f'{kind}/{rest}']}"


def transposed(path: str) -> bool:
    """Whether a parameter is stored with its axes swapped: torch's linear layers are [out, in], ours [in, out]."""
    return path.rsplit("/", 1)[-1] in ("wq", "wk", "wv", "wo", "gate", "up", "down")


def load(
    folder: str | Path,
    dtype: Any = None,
    sharding: Sharding | Placement | Any | None = None,
    advance: Advance = lambda count: None,
) -> tuple[Model, Any]:
    """A model and its parameters, straight from the files to where they shall lie.

    Each device's part of each tensor is read by itself, so the host never holds much more than the parameters.

    Args:
      folder: with `config.json` and safetensors, single or sharded.
      dtype: of the parameters and the computation, as NumPy, JAX or a name says it: float32, bfloat16 or float16;
        None: as the files have it.
      sharding: a sharding for all tensors, a tree of them like the parameters, or a placement
        (`parallel.placement`); None: whole on the first device.
      advance: called after each tensor.

    Returns:
      `CausalLM` or `ValueModel`, with `model.apply({"params": params}, tokens_BxT)` for logits [B, T, V] or
      value logits [B, T], and `model.decoder` for samplers and losses.

    Raises:
      InputError: an unknown architecture; tensors missing, left over or of other shapes, or with
        NaNs or infinities. All that is wrong is listed by name.
      ValueError: another dtype.
    """
    folder = Path(folder)
    stored = tensors.find(folder)
    dtype = None if dtype is None else _name_of(dtype)
    model = _described(folder, stored, dtype)
    places, problems = _places(model, sharding), []
    params: dict[str, jax.Array] = {}
    # The largest first: what reading takes on top is then smallest when most is already held.
    names = sorted(_names(model).items(), key=lambda pair: -math.prod(stored[pair[1]].shape))
    for path, name in names:
        target = jnp.dtype(dtype) if dtype else tensors.DTYPES[stored[name].dtype]
        params[path], finite = _place(stored[name], transposed(path), target, places[path])
        problems += [f"{name} {tensors.NOT_FINITE}"] * (not finite)
        advance(1)
    if isinstance(model, ValueModel):
        params |= _read_head(stored, places, problems)
    if problems:
        raise _unusable(folder, problems)
    return model, unflatten_dict(params, sep="/")


def _name_of(dtype: Any) -> str:
    """A type of parameters as a configuration has it: text, which JSON can hold."""
    name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    if name not in (known := [found.name for found in tensors.DTYPES.values()]):
        raise ValueError(f"dtype={name!r}: expected one of {', '.join(known)}")
    return name


def describe(folder: str | Path) -> Model:
    """The model of a folder, whose weights stay on the disk: `shapes(describe(FOLDER))` are those of its parameters.

    Raises:
      InputError: as `load` does, but for what the numbers are.
    """
    return _described(Path(folder), tensors.find(Path(folder)), None)


def unread(folder: str | Path) -> tuple[CausalLM, Any]:
    """A language model and its parameters, each of which is read when it is asked for (`tensors.Unread`).

    Raises:
      InputError: as `load`; of NaNs and infinities once they are read, or where it is a value model.
    """
    folder = Path(folder)
    stored = tensors.find(folder)
    model = _described(folder, stored, None)
    if not isinstance(model, CausalLM):
        raise InputError(f"{folder}: a value model; expected a language model, one of architecture ...ForCausalLM")

    def later(path: str, name: str) -> Unread:
        where, swapped = stored[name], transposed(path)

        def make() -> np.ndarray:
            array, finite = tensors.read(where, [slice(None)] * len(where.shape), tensors.DTYPES[where.dtype])
            if not finite:
                raise _unusable(folder, [f"{name} {tensors.NOT_FINITE}"])
            return array.T if swapped else array

        return Unread(where.shape[::-1] if swapped else where.shape, tensors.DTYPES[where.dtype], make)

    return model, unflatten_dict({path: later(path, name) for path, name in _names(model).items()}, sep="/")


def _described(folder: Path, stored: dict[str, Tensor], dtype: str | None) -> Model:
    config, kind = _check(folder, stored)
    embedding = stored[_OUTSIDE["embedding"]]
    return _model(dataclasses.replace(config, dtype=dtype or tensors.DTYPES[embedding.dtype].name), kind)


def _check(folder: Path, stored: dict[str, Tensor]) -> tuple[DecoderConfig, str]:
    """What `config.json` describes, if the tensors and the tokenizer are those of such a model."""
    problems: list[str] = []
    config, kind = families.read(tensors.read_json(folder / "config.json"), problems)
    if config is not None:
        problems += [*_differences(_model(config, kind), stored), *_tokenizer_problems(folder, config.vocab_size)]
    if config is None or problems:
        raise _unusable(folder, problems)
    return config, kind


def _unusable(folder: Path, problems: list[str]) -> InputError:
    lines = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
    return InputError(f"{folder}: cannot be used as a model:{lines}\ncopy the folder anew, or give another one")


def _model(config: DecoderConfig, kind: str) -> Model:
    return ValueModel(Decoder(config)) if kind == families.VALUE else CausalLM(Decoder(config))


def _boxed(model: Model) -> Any:
    """Shapes of the parameters, with their axis names."""
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]


def shapes(model: Model) -> dict[str, Any]:
    """Shapes and types of a model's parameters, by path: {"attention_0/wq": ..., ...}."""
    return flatten_dict(nn.meta.unbox(_boxed(model)), sep="/")


def _names(model: Model) -> dict[str, str]:
    """For each parameter of the decoder what transformers calls it."""
    paths = [path for path in shapes(model) if not path.startswith("value_head/")]
    return {path: stored_name(path.removeprefix("decoder/"), model.decoder.config) for path in paths}


def _places(model: Model, sharding: Any) -> dict[str, Sharding]:
    """For each parameter where it shall lie."""
    if sharding is None:
        sharding = SingleDeviceSharding(jax.devices()[0])
    if isinstance(sharding, Sharding):
        return dict.fromkeys(shapes(model), sharding)
    tree = sharding.of_params(_boxed(model)) if isinstance(sharding, Placement) else sharding
    places: dict[str, Any] = flatten_dict(tree, sep="/")
    return places


def _differences(model: Model, stored: dict[str, Tensor]) -> Iterator[str]:
    """What is missing, what is left over, and what has another shape, a line each."""
    config, names, wanted = model.decoder.config, _names(model), shapes(model)
    known = set(names.values())
    if config.tied_embedding:
        known.add(_OUTSIDE["unembedding"])  # a copy of the embedding, which transformers passes over as well
    for path, name in names.items():
        shape = wanted[path].shape[:: -1 if transposed(path) else 1]
        if name not in stored:
            yield f"missing tensor {name} {list(shape)}"
        elif stored[name].shape != shape:
            note = ""
            if path.endswith("embedding") and stored[name].shape[1:] == shape[1:]:
                size = "smaller" if stored[name].shape[0] < shape[0] else "larger"
                note = f": it is {size} than vocab_size={config.vocab_size} in config.json"
            yield f"{name} has shape {list(stored[name].shape)}, expected {list(shape)}{note}"
    if isinstance(model, ValueModel):
        known |= {"score.weight", "score.bias"}
        yield from _head_differences(stored, config)
    for name in sorted(set(stored) - known):
        if not name.endswith("rotary_emb.inv_freq"):  # old Llama files hold what follows from the configuration
            yield f"unexpected tensor {name} {list(stored[name].shape)}"


def _tokenizer_problems(folder: Path, rows: int) -> Iterator[str]:
    """A token that the embedding has no row for; more rows than tokens are fine, they are often padded."""
    path = next((folder / name for name in _VOCABULARIES if (folder / name).is_file()), None)
    if path is not None and (last := _last_token(path)) >= rows:
        yield f"{path.name} has token {last}, the embedding {rows} rows"


def _last_token(path: Path) -> int:
    """The largest id of a tokenizer."""
    if path.suffix == ".model":
        return SentencePiece(path).size - 1
    known = tensors.read_json(path)
    vocabulary = (known.get("model") or {}).get("vocab") or {}
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    return max([*ids, *(token["id"] for token in known.get("added_tokens") or [])], default=0)


def _place(where: Tensor, swapped: bool, dtype: np.dtype, sharding: Sharding) -> tuple[jax.Array, bool]:
    """A tensor on its devices, and whether it is finite; each device's part is read by itself."""
    finite = True

    def part(index: Any) -> np.ndarray:
        nonlocal finite
        block, good = tensors.read(where, index[::-1] if swapped else index, dtype)
        finite = finite and good
        return block.T if swapped else block

    shape = where.shape[::-1] if swapped else where.shape
    return jax.make_array_from_callback(shape, sharding, part), finite


def _head_differences(stored: dict[str, Tensor], config: DecoderConfig) -> Iterator[str]:
    labels = stored["score.bias"].shape[0] if "score.bias" in stored and stored["score.bias"].shape else 2
    for name, shape in {"score.weight": (labels, config.d_model), "score.bias": (labels,)}.items():
        if name not in stored:
            yield f"missing tensor {name} {list(shape)}"
        elif stored[name].shape != shape or labels not in (1, 2):
            yield f"{name} has shape {list(stored[name].shape)}, expected {[2, *shape[1:]]}, or 1 label"


def _read_head(stored: dict[str, Tensor], places: dict[str, Sharding], problems: list[str]) -> dict[str, jax.Array]:
    """The value head, float32, of a score layer: of two labels what the second has over the first."""
    head = {}
    for name, path in (("score.weight", "value_head/kernel"), ("score.bias", "value_head/bias")):
        where = stored[name]
        rows, finite = tensors.read(where, [slice(None)] * len(where.shape), np.dtype(np.float32))
        problems += [f"{name} {tensors.NOT_FINITE}"] * (not finite)
        place = places[path]
        whole = NamedSharding(place.mesh, P()) if isinstance(place, NamedSharding) else place
        head[path] = jax.device_put(rows[-1] - rows[0] if len(rows) == 2 else rows[0], whole)
    return head


def save(
    model: Model,
    params: Any,
    folder: str | Path,
    tokenizer: str | Path | None = None,
    shard_bytes: int = 5 * 10**9,
    token_ids: dict[str, int] | None = None,
    advance: Advance = lambda count: None,
) -> None:
    """Writes a model as a folder that `load` and transformers read, whole or not at all.

    The tensors have the type of the parameters, a score layer float32. A decoder that is a plain Llama is written as
    one, whatever family it was read as.

    Args:
      model, params: as `load` returns them.
      folder: a new or empty one.
      tokenizer: a folder whose tokenizer files, generation settings and token ids go along, or a SentencePiece file.
      shard_bytes: size from which the weights are split over several files.
      token_ids: `eos_token_id` and its like for `config.json`, where the tokenizer's folder has none.
      advance: called after each tensor.

    Raises:
      InputError: the folder is taken or not writable, or transformers has no architecture for the model.
    """
    kind = families.VALUE if isinstance(model, ValueModel) else families.CAUSAL
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    if odd := set(flat) ^ set(shapes(model)):
        raise ValueError(f"parameters that are not the model's, or lacking: {sorted(odd)}")
    config = model.decoder.config
    if kind == families.VALUE:  # the unembedding is of no use to it
        config = dataclasses.replace(config, tied_embedding=True)
        flat.pop("decoder/unembedding", None)
    dtype = next(array.dtype for path, array in flat.items() if path.endswith("embedding"))
    raw = families.write(config, kind, str(dtype))
    if kind == families.VALUE:
        raw |= {"id2label": LABELS, "label2id": {label: int(i) for i, label in LABELS.items()}}
    with files.new_folder(Path(folder)) as partial:
        tensors.write_folder(partial, _sources(flat, config), shard_bytes, advance)
        raw |= token_ids or {}
        raw |= copy_tokenizer(Path(tokenizer), partial) if tokenizer is not None else {}
        files.write_json(partial / "config.json", raw)


def _sources(flat: dict[str, Any], config: DecoderConfig) -> Iterator[Source]:
    for path, array in flat.items():
        if path.startswith("value_head/"):
            continue
        swapped = transposed(path)
        shape = array.shape[::-1] if swapped else array.shape
        name = stored_name(path.removeprefix("decoder/"), config)
        yield Source(name, array.dtype, shape, lambda a=array, s=swapped: np.asarray(a).T if s else np.asarray(a))
    if "value_head/kernel" in flat:
        for name, path in (("score.weight", "value_head/kernel"), ("score.bias", "value_head/bias")):
            right = np.asarray(flat[path], np.float32)
            pair = np.stack([np.zeros_like(right), right])
            yield Source(name, pair.dtype, pair.shape, lambda pair=pair: pair)


def tokenizer_files(folder: Path) -> list[Path]:
    """What belongs to a tokenizer in a model's folder."""
    return sorted({path for pattern in _TOKENIZER for path in folder.glob(pattern) if path.is_file()})


def copy_tokenizer(tokenizer: Path, folder: Path) -> dict[str, Any]:
    """Copies what belongs to a tokenizer; returns the token ids for `config.json`."""
    if tokenizer.is_file():
        shutil.copyfile(tokenizer, folder / "tokenizer.model")
        return {}
    found = tokenizer_files(tokenizer)
    if not found:
        raise InputError(f"{tokenizer}: no tokenizer files there; expected tokenizer.json or tokenizer.model")
    settings = tokenizer / "generation_config.json"
    for path in [*found, *([settings] if settings.is_file() else [])]:
        shutil.copyfile(path, folder / path.name)
    known = tensors.read_json(tokenizer / "config.json") if (tokenizer / "config.json").is_file() else {}
    return {key: known[key] for key in _TOKEN_IDS if key in known}
