"""The vocabularies of published models: text to ids and back, as their own files have it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

from glore_jax.errors import InputError


class Vocabulary(Protocol):
    """Attributes: size, one more than the largest id; path, the file that it was read from."""

    size: int
    path: Path

    def encode(self, text: str) -> list[int]:
        """Ids of a text; what looks like a special token in it is text all the same."""
        ...

    def encode_markup(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are meant, as in a chat template."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def decode_without_special(self, ids: Sequence[int]) -> str:
        """Text of ids, those of special tokens left out."""
        ...

    def id_of(self, token: str) -> int | None: ...

    def default(self, name: str) -> int | None:
        """The `bos`, `eos` or `pad` token that the vocabulary itself names."""
        ...

    def opening(self) -> list[int]:
        """What the model expects in front of a text."""
        ...


class HuggingFace:
    """A `tokenizer.json`."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise InputError(f"{path}: not a tokenizer.json ({error}); take the model's own file") from error
        self.backend.no_padding()
        self.backend.no_truncation()
        self.size = max(self.backend.get_vocab().values()) + 1  # ids may have gaps

    def encode(self, text: str) -> list[int]:
        self.backend.encode_special_tokens = True
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_markup(self, text: str) -> list[int]:
        self.backend.encode_special_tokens = False
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(ids, skip_special_tokens=False)

    def decode_without_special(self, ids: Sequence[int]) -> str:
        return self.backend.decode(ids, skip_special_tokens=True)

    def id_of(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def default(self, name: str) -> int | None:
        return None  # the format has no place for it

    def opening(self) -> list[int]:
        """What the file's own post-processor puts in front."""
        encoding = self.backend.encode("a")
        first = encoding.special_tokens_mask.index(0)
        return encoding.ids[:first]


class SentencePiece:
    """A SentencePiece `.model` of a published model, such as that of Llama 2 or Mistral."""

    def __init__(self, path: Path, add_bos: bool = True):
        self.path = path
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
        except RuntimeError as error:
            raise InputError(f"{path}: not a SentencePiece model ({error}); take the model's own file") from error
        self.size, self.add_bos = self.processor.vocab_size(), add_bos
        self._special = {self.processor.id_to_piece(i): i for i in range(self.size) if self.processor.is_control(i)}

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def encode_markup(self, text: str) -> list[int]:
        pieces = re.split("|".join(f"({re.escape(piece)})" for piece in self._special) or "(?!)", text)
        ids: list[int] = []
        for piece in pieces:
            if piece:
                ids += [self._special[piece]] if piece in self._special else self.processor.encode(piece)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.processor.decode(list(ids))

    def decode_without_special(self, ids: Sequence[int]) -> str:
        return self.decode(ids)  # it writes nothing for control pieces

    def id_of(self, token: str) -> int | None:
        i = self.processor.piece_to_id(token)
        return None if i == self.processor.unk_id() else i

    def default(self, name: str) -> int | None:
        ids = {"bos": self.processor.bos_id(), "eos": self.processor.eos_id(), "pad": self.processor.pad_id()}
        i = ids[name]
        return i if i >= 0 else None

    def opening(self) -> list[int]:
        bos = self.processor.bos_id()
        return [bos] if self.add_bos and bos >= 0 else []


def line_ends(vocabulary: Vocabulary) -> Mapping[int, str]:
    """Every token with a line end in it, and its text: models write `.\\n` or two line ends as one token."""
    texts = ((i, vocabulary.decode([i])) for i in range(vocabulary.size))
    return {i: text for i, text in texts if "\n" in text}
