"""Tokenizers of published models, with the marks of this package added or spelled out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from glore_jax.errors import InputError
from glore_jax.text import chat, tokenizers, vocabularies
from glore_jax.text.plain import OfRun, Plain, Published
from glore_jax.text.tokenizers import MARKS, STEP_END, Tokenizer
from glore_jax.text.vocabularies import HuggingFace, SentencePiece, Vocabulary

MARK_STYLES = ("tokens", "text")
_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model")
_SETTINGS = "tokenizer_config.json"
_SAVED = "tokenizer_marks.json"  # what `Pretrained.save` writes beside the vocabulary
FILES = (*_FILES, _SETTINGS, _SAVED, "config.json", "chat_template.jinja")  # all that is ever read of a folder


class Pretrained(Tokenizer):
    """A published vocabulary as a `Tokenizer`.

    Every line is encoded as it stands after a line end, so that a step is the same tokens wherever it is; a line end
    is the vocabulary's own. Nothing in a text becomes a special token or a mark: only formats write those.

    Marks are, by `marks`, either `tokens`: one new id each after the vocabulary's last, for which the embedding must
    grow (`models/vocabulary.py`); or `text`: spelled out on a line of their own, in as many tokens as that takes.

    A vocabulary without a padding token pads with its end token. Nothing reads what stands there.
    """

    def __init__(self, vocabulary: Vocabulary, eos: int, pad: int | None, marks: str, where: str):
        """Args: where: for errors, whose tokenizer it is; the others see above."""
        self.vocabulary, self.eos, self.pad = vocabulary, eos, eos if pad is None else pad
        anchor = vocabulary.encode(STEP_END)
        self._anchor = anchor if vocabulary.decode(anchor) == STEP_END else []
        if marks == "text" and not self._anchor:
            raise InputError(f"{where}: the vocabulary has no line end, which ends a step; take marks='tokens'")
        added = [mark for mark in MARKS if mark != STEP_END or not self._anchor] if marks == "tokens" else []
        ids = {mark: vocabulary.size + i for i, mark in enumerate(added)}
        self._added = {i: mark for mark, i in ids.items()}
        self.style, self.added = marks, len(added)
        self.vocab_size = vocabulary.size + len(added)
        self.step_end = self._anchor[-1] if self._anchor else ids[STEP_END]
        ends = vocabularies.line_ends(vocabulary)
        self.line_ends = frozenset((self.step_end, *ends))
        self.text_line_ends = frozenset(i for i, text in ends.items() if text.strip())
        spelled = {mark: (*self._line(mark), self.step_end) for mark in MARKS if mark != STEP_END}
        self.marks = {STEP_END: (self.step_end,)} | (
            {mark: (i,) for mark, i in ids.items()} if marks == "tokens" else spelled
        )
        self.opening, self.closing = tuple(vocabulary.opening()), (self.step_end,)

    def save(self, folder: Path) -> None:
        """Writes the vocabulary's own file, and what `reopen` has to know beside it."""
        shutil.copyfile(self.vocabulary.path, folder / self.vocabulary.path.name)
        around = {"opening": self.opening, "closing": self.closing}
        state = {"marks": self.style, "eos": self.eos, "pad": self.pad, **around}
        (folder / _SAVED).write_text(json.dumps(state), encoding="utf-8")

    def use_chat(self, before: str, after: str) -> None:
        """Puts what a chat template writes before and after the user's words around every question."""
        self.opening = tuple(self.vocabulary.encode_markup(before))
        self.closing = tuple(self._line(after, self.vocabulary.encode_markup))

    def encode(self, text: str) -> list[int]:
        first, *rest = text.split(STEP_END)
        ids = self._line(first)
        for line in rest:
            ids += [self.step_end, *self._line(line)]
        return ids

    def _line(self, line: str, encode: Callable[[str], list[int]] | None = None) -> list[int]:
        """Tokens of a line as it stands after a line end.

        Byte-level vocabularies may have the line end and the blanks of an indented line as one token. They write no
        blank of their own in front of a text, so there the line by itself is the same.
        """
        encode = encode or self.vocabulary.encode
        ids, cut = encode(STEP_END + line) if self._anchor else [], len(self._anchor)
        return ids[cut:] if cut and ids[:cut] == self._anchor else encode(line)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; padding, the end and what opens a text vanish, added marks are spelled out."""
        runs: list[list[int]] = [[]]
        text = ""
        for i in map(int, ids):
            if i in self._added:
                text += self._text(runs.pop()) + self._added[i]
                runs.append([])
            elif i not in (self.pad, self.eos):
                runs[-1].append(i)
        return text + self._text(runs.pop())

    def _text(self, run: list[int]) -> str:
        """Text of tokens that stand after a line end, where a blank in front of the first is one."""
        return self.vocabulary.decode([*self._anchor, *run])[len(STEP_END if self._anchor else "") :] if run else ""


def load(folder: str | Path, marks: str = "tokens", with_chat: bool = False) -> Tokenizer:
    """The tokenizer of a checkpoint folder: its `tokenizer.json`, or else its SentencePiece model.

    A SentencePiece model with the marks as pieces is this package's own: it has them as tokens, and no chat template.

    Args:
      folder: as it is published; `tokenizer_config.json` or `config.json` in it name the special tokens.
      marks: `tokens` or `text`, see `Pretrained`.
      with_chat: whether questions are put as the folder's chat template has it.

    Raises:
      InputError: no tokenizer, a damaged one, none or an unknown end token, no chat template, or an unknown style.
    """
    folder = Path(folder)
    if marks not in MARK_STYLES:
        raise InputError(f"marks={marks!r}: expected one of {', '.join(MARK_STYLES)}")
    if (folder / _SAVED).is_file():
        style = _read(folder / _SAVED).get("marks")
        if marks != style or with_chat:
            raise InputError(
                f"{folder}: this tokenizer was saved with marks={style!r} and its prompt; take that, and chat=False"
            )
        return reopen(folder)
    path = _file(folder)
    settings, model = _read(folder / _SETTINGS), _read(folder / "config.json")
    vocabulary = _vocabulary(path, settings)
    if _is_own(vocabulary):
        if marks != "tokens" or with_chat:
            raise InputError(f"{path}: this package's own tokenizer has its marks as tokens, and no chat template")
        return tokenizers.load(path)
    eos, pad = _eos(vocabulary, settings, model, folder), _special(vocabulary, "pad", settings, model, folder)
    tokenizer = Pretrained(vocabulary, eos, pad, marks, str(folder))
    if with_chat:
        tokenizer.use_chat(*chat.around(_template(folder, settings), _spelled(settings), str(folder)))
    return tokenizer


def load_plain(folder: str | Path) -> Plain:
    """How a model reads and writes plain text: a published one as transformers has it, one of a run as it has learnt.

    Args:
      folder: of the model; or `base` of a run, in which the tokenizer of its models lies.

    Raises:
      InputError: no tokenizer, a damaged one, or none or an unknown end token.
    """
    folder = Path(folder)
    if (folder / _SAVED).is_file():
        return OfRun(reopen(folder))
    path, settings, model = _file(folder), _read(folder / _SETTINGS), _read(folder / "config.json")
    vocabulary = _vocabulary(path, settings)
    if _is_own(vocabulary):
        return OfRun(tokenizers.load(path))
    # Published settings that name no first token mean that there is none, whatever number `config.json` has.
    named = "bos_token" not in settings or settings["bos_token"] is not None
    bos = _special(vocabulary, "bos", settings, model, folder) if named else None
    return Published(vocabulary, _eos(vocabulary, settings, model, folder), bos)


def reopen(folder: Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into a folder, of whichever kind it is.

    Raises:
      InputError: no tokenizer there, or a damaged one.
    """
    path, saved = _file(folder), folder / _SAVED
    if not saved.is_file():
        return tokenizers.load(path)
    vocabulary: Vocabulary = HuggingFace(path) if path.suffix == ".json" else SentencePiece(path)
    state = _read(saved)
    try:
        tokenizer = Pretrained(vocabulary, state["eos"], state["pad"], state["marks"], str(folder))
        tokenizer.opening, tokenizer.closing = tuple(state["opening"]), tuple(state["closing"])
    except KeyError as error:
        raise InputError(f"{saved}: {error} is missing; make the folder anew") from error
    return tokenizer


def holds(folder: Path) -> bool:
    """Whether a folder has a tokenizer."""
    return any((folder / name).is_file() for name in _FILES)


def of_model(folder: Path) -> Tokenizer:
    """The tokenizer in a model's folder: as a run saved it, or else with the marks as tokens."""
    return reopen(folder) if (folder / _SAVED).is_file() else load(folder)


def _file(folder: Path) -> Path:
    """The file that holds the vocabulary."""
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: no tokenizer there; looked for {', '.join(_FILES)}; copy the model's own into it")
    return path


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); take the file that is published with the model") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def _vocabulary(path: Path, settings: dict[str, Any]) -> Vocabulary:
    return HuggingFace(path) if path.suffix == ".json" else SentencePiece(path, settings.get("add_bos_token", True))


def _is_own(vocabulary: Vocabulary) -> bool:
    """Whether it is a SentencePiece model that this package trained, with the marks as pieces."""
    return isinstance(vocabulary, SentencePiece) and all(vocabulary.id_of(mark) is not None for mark in MARKS)


def _spelled(settings: dict[str, Any]) -> dict[str, str]:
    """The special tokens of a `tokenizer_config.json` as text: they stand there as such, or as objects with it."""
    named = {key: value for key, value in settings.items() if key.endswith("_token")}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _special(
    vocabulary: Vocabulary, name: str, settings: dict[str, Any], model: dict[str, Any], folder: Path
) -> int | None:
    """The id of `bos`, `eos` or `pad`: by name, by the model's number (the first), or the vocabulary's own."""
    text = _spelled(settings).get(f"{name}_token")
    if text is not None:
        i = vocabulary.id_of(text)
        if i is None:
            raise InputError(f"{folder / _SETTINGS}: the {name}_token {text!r} is not in the vocabulary beside it")
        return i
    i = model.get(f"{name}_token_id")
    i = i[0] if isinstance(i, list) and i else i
    if i is not None and not (isinstance(i, int) and 0 <= i < vocabulary.size):
        raise InputError(f"{folder}/config.json: {name}_token_id={i!r} is no id of the vocabulary ({vocabulary.size})")
    return vocabulary.default(name) if i is None else i


def _eos(vocabulary: Vocabulary, settings: dict[str, Any], model: dict[str, Any], folder: Path) -> int:
    eos = _special(vocabulary, "eos", settings, model, folder)
    if eos is None:
        raise InputError(
            f"{folder}: it is not said which token ends a text; looked for eos_token in {_SETTINGS} and eos_token_id "
            "in config.json; copy the one that is published with the model"
        )
    return eos


def _template(folder: Path, settings: dict[str, Any]) -> str:
    beside = folder / "chat_template.jinja"
    template = beside.read_text(encoding="utf-8") if beside.is_file() else settings.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    if not isinstance(template, str):
        raise InputError(
            f"{folder}: no chat template; looked for {beside.name} and chat_template in {_SETTINGS}; "
            "a model that is not tuned on instructions has none, take base.chat=False"
        )
    return template
