"""Text that is read as it stands, without a format of this package around it: what benchmarks of others hand in.

A published model reads it as transformers would hand it over, a model of a run as it has learnt to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from glore_jax.text.tokenizers import STEP_END, Tokenizer
from glore_jax.text.vocabularies import Vocabulary


class Plain(Protocol):
    """Attributes: eos, what ends a text; first, what a text is conditioned on that has nothing before it."""

    eos: int
    first: int

    def encode(self, text: str, opened: bool = True) -> list[int]:
        """Ids of a text; where `opened`, after what the model expects in front of one."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of what a model wrote; special tokens vanish."""
        ...


class Published(Plain):
    """As transformers encodes and decodes: in one piece, special tokens meant where they are spelled out."""

    def __init__(self, vocabulary: Vocabulary, eos: int, bos: int | None):
        self.vocabulary, self.eos, self.first = vocabulary, eos, eos if bos is None else bos
        self._opening = vocabulary.opening()

    def encode(self, text: str, opened: bool = True) -> list[int]:
        ids = self.vocabulary.encode_markup(text)
        return [*self._opening, *ids] if opened and ids[:1] != [self.first] else ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.decode_without_special(ids)


class OfRun(Plain):
    """As the models of a run read and write: line by line, each line the same tokens wherever it stands."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.eos = tokenizer, tokenizer.eos
        self.first = tokenizer.opening[0] if tokenizer.opening else tokenizer.eos

    def encode(self, text: str, opened: bool = True) -> list[int]:
        first, *rest = text.split(STEP_END)
        ids = [*(self.tokenizer.opening if opened else ()), *self.tokenizer.encode(first)]
        for line in rest:
            ids += [self.tokenizer.step_end, *self.tokenizer.encode(line)]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode(ids)
