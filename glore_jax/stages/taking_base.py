"""The stage that takes the base model: from a folder of this package, or from one of a published model.

A published model's folder is one of Hugging Face: `config.json`, safetensors and a tokenizer. What else the folder
holds is not looked at. A folder of this package has no `config.json`: sizes are in the metadata of the weights.

To either a LoRA adapter can be added, from a folder as PEFT has it: the base model is then the two merged.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from glore_jax.errors import InputError
from glore_jax.models import adapters, huggingface, lora, published, tensors, vocabulary
from glore_jax.models.decoder import CausalLM, Decoder, DecoderConfig
from glore_jax.models.lora import LoraConfig
from glore_jax.models.tensors import Unread
from glore_jax.pipeline import StageContext
from glore_jax.records import Problem
from glore_jax.stages import artifacts
from glore_jax.text import formats, pretrained
from glore_jax.text.tokenizers import BAD, DRAFT, MARKS, REWRITE, STEP_END, VALUE_MARKS, Tokenizer
from glore_jax.training import checkpoints

_STEPS = 9  # of a draft, for which a refiner's source has room with a value each


def folder_of(config: Any) -> Path:
    """`base.path`, or the folder that is shipped with the package.

    Raises:
      InputError: no such folder.
    """
    folder = Path(config.base.path or str(resources.files("glore_jax") / "assets" / "arithmetic_base"))
    if not folder.is_dir():
        raise InputError(
            f"base.path={folder}: no such folder; expected one with config.json, safetensors and a tokenizer, as "
            "Hugging Face publishes models, or one that `glore run` made"
        )
    return folder


def adapter_of(config: Any) -> Path | None:
    """`base.adapter`, or None where it is "".

    Raises:
      InputError: no such folder.
    """
    if not config.base.adapter:
        return None
    folder = Path(config.base.adapter)
    if not folder.is_dir():
        raise InputError(
            f"base.adapter={folder}: no such folder; expected one with {adapters.SETTINGS} and {adapters.WEIGHTS}, as "
            "PEFT saves them, or `adapter` of a stage that trained one"
        )
    return folder


def files_of(config: Any) -> list[Path]:
    """The files that the base model is read from; none where there is no such folder, which the stage says itself."""
    folder = Path(config.base.path) if config.base.path else folder_of(config)
    weights, texts = sorted(folder.glob("*.safetensors*")), artifacts.tokenizer_folder(folder)
    found = [*weights, *(texts / name for name in pretrained.FILES if (texts / name).is_file())]
    if config.base.get("adapter"):  # work folders of before it could be given lack the key
        adapter = Path(config.base.adapter)
        found += [*sorted(adapter.glob("*.safetensors*")), adapter / adapters.SETTINGS]
    return found


def tokenizer_of(config: Any) -> Tokenizer:
    """The base model's tokenizer, with the marks as `base.marks` wants them, and questions as `base.chat` does."""
    return read_tokenizer(folder_of(config), config.base.marks, config.base.chat)


def read_tokenizer(folder: Path, marks: str, with_chat: bool) -> Tokenizer:
    """A model's tokenizer; where it is that of a stage of a run, the run's, as it is.

    Args:
      marks, with_chat: see `pretrained.load`.
    """
    texts = artifacts.tokenizer_folder(folder)
    return pretrained.load(folder, marks, with_chat) if texts == folder else pretrained.reopen(texts)


def base(context: StageContext) -> dict[str, Any]:
    """Puts the base model and its tokenizer into the work folder; checks that every question fits."""
    tokenizer = tokenizer_of(context.config)
    rows = [problem for split in artifacts.SPLITS for problem in artifacts.read_problems(context, split)]
    longest = check_questions(context.config.sampling, tokenizer, rows)
    return take(context, tokenizer) | {"longest_question": longest}


def take(context: StageContext, tokenizer: Tokenizer) -> dict[str, Any]:
    """Writes the model and its tokenizer into the stage's folder; returns counts."""
    params, config = _load(context.config, tokenizer)
    dtypes = {str(x.dtype) for x in jax.tree.leaves(params)}
    artifacts.write_model(context.folder, params, config, dtypes.pop() if len(dtypes) == 1 else "float32")
    artifacts.write_tokenizer(context.folder, tokenizer)
    numbers = sum(x.size for x in jax.tree.leaves(params))
    return {"parameters": numbers, "vocabulary": tokenizer.vocab_size}


def check_questions(sampling: Any, tokenizer: Tokenizer, rows: list[Problem]) -> int:
    """Tokens of the longest question.

    Raises:
      InputError: a question that leaves no room for a draft and its marks in a refiner's source.
    """
    marks = [DRAFT, BAD, REWRITE, *[VALUE_MARKS[0]] * _STEPS]
    longest = max(sampling.buckets) - sampling.max_new_tokens - sum(len(tokenizer.marks[mark]) for mark in marks)
    sizes = {problem.id: len(formats.encode_prompt(tokenizer, problem.question)) for problem in rows}
    if long := [name for name, size in sizes.items() if size > longest]:
        named = ", ".join(f"{name} ({sizes[name]})" for name in long[:5])
        raise InputError(
            f"{len(long)} questions are longer than the {longest} tokens that fit: {named}"
            f"{', ...' if len(long) > 5 else ''}; shorten them or raise the last of sampling.buckets by as much"
        )
    return max(sizes.values())


def describe(config: Any, tokenizer: Tokenizer) -> DecoderConfig:
    """The base model that the stage would write, from configuration and headers alone."""
    folder, adapter = folder_of(config), adapter_of(config)
    published = _is_published(folder)
    if published:
        model = _published(folder).decoder.config
    else:
        model = DecoderConfig(**checkpoints.read_config(folder / artifacts.MODEL))
        _check_rows(folder, model, tokenizer.vocab_size)
    if adapter is not None:
        adapters.describe(adapter, CausalLM(Decoder(model)))
    return vocabulary.grown(model, tokenizer.vocab_size) if published else model


def planned(config: Any) -> tuple[DecoderConfig, tuple[int, ...]]:
    """The base model that the stage would write, and the ids of its new marks.

    Of a published model whose folder is not there, by the sizes that are known of it (`models.published`).

    Raises:
      InputError: no such folder, and none of a published model.
    """
    if not config.base.path or Path(config.base.path).exists():
        tokenizer = tokenizer_of(config)
        return describe(config, tokenizer), tokenizer.new_marks
    model, tokens = published.describe(Path(config.base.path).name)
    marks = [mark for mark in MARKS if mark != STEP_END] if config.base.marks == "tokens" else []
    size = tokens + len(marks)
    return vocabulary.grown(model, size), tuple(range(tokens, size))


def _is_published(folder: Path) -> bool:
    """Whether it is a folder of Hugging Face; one without weights is refused with what is there instead."""
    published = (folder / "config.json").is_file()
    if not published and not (folder / artifacts.MODEL).is_file():
        tensors.find(folder)
        raise InputError(f"{folder}: weights, but no config.json; copy the one that is published with the model")
    return published


def _published(folder: Path) -> CausalLM:
    """A published language model, its weights unread."""
    model = huggingface.describe(folder)
    if not isinstance(model, CausalLM):
        raise InputError(
            f"{folder}: a value model; base.path takes a language model, one of architecture ...ForCausalLM"
        )
    return model


def _check_rows(folder: Path, config: DecoderConfig, tokens: int) -> None:
    if tokens > config.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has {tokens} tokens, the embedding {config.vocab_size} rows; they are not of one "
            "model: copy the whole folder anew"
        )


def _load(settings: Any, tokenizer: Tokenizer) -> tuple[Any, DecoderConfig]:
    """Parameters `{"decoder": ...}` and configuration, with a row of the embedding for every mark.

    Each is read when it is written, so neither the host nor a device ever has the model whole.
    """
    describe(settings, tokenizer)  # before the weights are read
    folder, adapter = folder_of(settings), adapter_of(settings)
    published = _is_published(folder)
    if published:
        model, params = huggingface.unread(folder)
    else:
        params, raw = checkpoints.unread(folder / artifacts.MODEL)
        if "value_head" in params:
            raise InputError(f"{folder}: a value model; expected a language model, as expert_iteration has in a run")
        model, params = CausalLM(Decoder(DecoderConfig(**raw))), params["decoder"]
    if adapter is not None:
        params = _merged(params, *adapters.load(adapter, CausalLM(model.decoder)))
    config = model.decoder.config
    if published and tokenizer.added:
        config, params = _grown(config, params, tokenizer.vocab_size - tokenizer.added, tokenizer.vocab_size)
    return {"decoder": params}, config


def _merged(params: Any, change: LoraConfig, adapter: Any) -> Any:
    """`lora.merge`, layer by layer as they are read."""
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    changes: dict[str, Any] = flatten_dict(adapter, sep="/")
    for path in dict.fromkeys(side.rsplit("/", 1)[0] for side in changes):
        mine = unflatten_dict({f"{path}/{side}": changes[f"{path}/{side}"] for side in "ab"}, sep="/")

        def merged(weight: Any, path: str = path, mine: Any = mine) -> Any:
            return flatten_dict(lora.merge(unflatten_dict({path: weight}, sep="/"), mine, change), sep="/")[path]

        flat[path] = flat[path].then(merged)
    return unflatten_dict(flat, sep="/")


def _grown(config: DecoderConfig, params: Any, trained: int, size: int) -> tuple[DecoderConfig, Any]:
    """`vocabulary.grow`, each table as it is read."""
    bigger = vocabulary.grown(config, size)

    def table(name: str) -> Unread:
        more = lambda rows: vocabulary.grow(config, {name: jnp.asarray(rows)}, trained, size)[1][name]  # noqa: E731
        return params[name].then(more, (bigger.vocab_size, bigger.d_model))

    return bigger, {**params, **{name: table(name) for name in vocabulary.TABLES if name in params}}
