"""Folders with tokenizers of other makes: small ones trained here, and those of published models."""

from __future__ import annotations

import io
import json
from pathlib import Path

import public_data
import sentencepiece
import tokenizers
from handmade import EVEN_WEIGHTS
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from glore_jax.tasks.arithmetic import make_problem

SMALL = ("byte_level", "metaspace", "sentencepiece", "without_line_end")
PUBLISHED = ("mistral", "gpt2", "olmo")
_SPECIAL = ["<s>", "</s>", "<|user|>"]
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|user|>{{ message['content'] | trim }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>\n{% endif %}"
)


def _texts() -> list[str]:
    problems = [make_problem(0, "corpus", i, EVEN_WEIGHTS) for i in range(100)]
    # A full stop with the line end after it, and two line ends, often enough to be tokens.
    return [f"{p.question}\n\n{p.solution}.\n" for p in problems] + ["A line\n\nAnother.\n"] * 50


def _lines() -> list[str]:
    return [line for text in _texts() for line in text.split("\n")]


def _sentencepiece(byte_fallback: bool) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_lines()), model_writer=model, model_type="bpe", vocab_size=400, minloglevel=2,
        byte_fallback=byte_fallback, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False,
    )  # fmt: skip
    return model.getvalue()


def _byte_level() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r" ?[^\s\w]+[\r\n]*|\s*[\r\n]+| ?\w+|\s+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([made.pre_tokenizer, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        _texts(), trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    return made


def _metaspace() -> tokenizers.Tokenizer:
    """As Llama 2's: a blank in front of a text, bytes as fallback, the first token its own post-processor's."""
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    first = ["<unk>", *_SPECIAL, *(f"<0x{i:02X}>" for i in range(256))]
    made.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")  # while it learns: no token across a line end
    made.train_from_iterator(_lines(), trainers.BpeTrainer(vocab_size=600, special_tokens=first, show_progress=False))
    state = json.loads(made.to_str())
    state["pre_tokenizer"] = None
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in first[:4]]
    made = tokenizers.Tokenizer.from_str(json.dumps(state))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    return made


def make(name: str, folder: Path) -> Path:
    """Writes the tokenizer of that name as a checkpoint folder would have it."""
    settings: dict[str, object] = {"eos_token": {"content": "</s>"}, "bos_token": "<s>", "chat_template": CHAT}
    if name in ("sentencepiece", "without_line_end"):
        (folder / "tokenizer.model").write_bytes(_sentencepiece(name == "sentencepiece"))
        settings = {}
    elif name in SMALL:
        (_byte_level() if name == "byte_level" else _metaspace()).save(str(folder / "tokenizer.json"))
    else:
        settings = _published(name, folder)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _published(name: str, folder: Path) -> dict[str, object]:
    source = public_data.folder("tokenizers")
    if name == "mistral":
        (folder / "tokenizer.model").symlink_to(source / "mistral_v1.model")
        return {}
    if name == "olmo":
        (folder / "tokenizer.json").symlink_to(source / "olmo_neox_v1_5_digits.json")
        return {"eos_token": "<|endoftext|>", "pad_token": "<|padding|>"}
    vocabulary, merges = models.BPE.read_file(str(source / "gpt2_vocab.json"), str(source / "gpt2_merges.txt"))
    made = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    return {"eos_token": "<|endoftext|>"}
