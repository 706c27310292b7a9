"""What a tokenizer is, and the package's own: SentencePiece, trained here. Those of published models: pretrained.py."""

from __future__ import annotations

import abc
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import sentencepiece

from glore_jax.errors import InputError

FILE = "tokenizer.model"  # of the package's own tokenizer
STEP_END, BAD, DRAFT, REWRITE = "\n", "[BAD]", "[DRAFT]", "[REWRITE]"
NUM_VALUE_MARKS = 10
VALUE_MARKS = tuple(f"[V{i}]" for i in range(NUM_VALUE_MARKS))
# One token each, always: a step end that merged with its neighbour could not carry a label.
MARKS = (STEP_END, BAD, DRAFT, REWRITE, *VALUE_MARKS)
# Pieces that keep worked solutions short without hiding names or digits in longer pieces. A space and the digit
# after it are one piece: a space of its own puts a number one token further from whom it belongs to.
# (SentencePiece writes a space as \u2581.)
_ARITHMETIC_PIECES = ("'s", ":\u2581<<", "<<", ">>", "\u2581####\u2581", "####", *(f"\u2581{i}" for i in range(10)))


class Tokenizer(abc.ABC):
    """Text to token ids and back.

    Attributes:
      vocab_size: number of ids, the marks among them.
      added: how many of the last ids are marks that a published vocabulary was given here; its model has no row for
        them.
      pad, eos: what fills up a row, and what ends a text.
      step_end: what is written at the end of a line.
      line_ends: every id that ends a line where a model writes it, `step_end` among them.
      text_line_ends: those of them that write something else too, as `.\\n` does.
      marks: the ids of each of `MARKS`.
      opening, closing: what stands before and after the question in a prompt.
    """

    vocab_size: int
    added: int = 0
    pad: int
    eos: int
    step_end: int
    line_ends: frozenset[int]
    text_line_ends: frozenset[int] = frozenset()
    marks: Mapping[str, tuple[int, ...]]
    opening: tuple[int, ...] = ()
    closing: tuple[int, ...]

    @property
    def new_marks(self) -> tuple[int, ...]:
        """Ids of marks that a base model may not know: all that are tokens, but for a line end of its own."""
        tokens = {mark: ids[0] for mark, ids in self.marks.items() if len(ids) == 1}
        own = self.vocab_size - self.added
        return tuple(sorted(i for mark, i in tokens.items() if mark != STEP_END or i >= own))

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text; they decode to it."""

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; padding and the end vanish."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Writes into a folder what `pretrained.reopen` reads."""


class OwnTokenizer(Tokenizer):
    """A SentencePiece model in which each mark is a piece. Ids of the marks are attributes."""

    def __init__(self, model: bytes):
        self.model = model
        if not model:  # SentencePiece would take it for "loaded later", and answer everything with zeros
            raise InputError("an empty tokenizer model; expected the bytes of a SentencePiece .model file")
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        missing = [m for m in MARKS if self.processor.piece_to_id(m) == self.processor.unk_id()]
        if missing:
            raise InputError(
                f"the tokenizer lacks the marks {missing}; train one with `glore_jax.text.tokenizers.train`, or load "
                "that of a published model with `glore_jax.text.pretrained.load`"
            )
        self.pad, self.eos = self.processor.pad_id(), self.processor.eos_id()
        self.step_end, self.bad = self.mark(STEP_END), self.mark(BAD)
        self.draft, self.rewrite = self.mark(DRAFT), self.mark(REWRITE)
        self.value_marks = tuple(self.mark(m) for m in VALUE_MARKS)
        self.vocab_size = self.processor.vocab_size()
        self.line_ends, self.closing = frozenset([self.step_end]), (self.step_end,)
        self.marks = {mark: (self.mark(mark),) for mark in MARKS}

    def mark(self, piece: str) -> int:
        return self.processor.piece_to_id(piece)

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, line by line; padding and the end token vanish."""
        lines: list[list[int]] = [[]]
        for i in ids:
            if i == self.step_end:
                lines.append([])
            elif i not in (self.pad, self.eos):
                lines[-1].append(int(i))
        return "\n".join(self.processor.decode(line) for line in lines)

    def save(self, folder: Path) -> None:
        (folder / FILE).write_bytes(self.model)


def load(path: str | Path) -> OwnTokenizer:
    """Reads a `.model` file that `train` made."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no tokenizer there; expected a SentencePiece .model file")
    try:
        return OwnTokenizer(path.read_bytes())
    except (RuntimeError, InputError) as error:
        raise InputError(
            f"{path}: not a SentencePiece tokenizer of this package ({error}); make the file anew, or take the whole "
            "folder it came with"
        ) from error


def train(texts: Iterable[str], vocab_size: int) -> OwnTokenizer:
    """Trains a byte-pair SentencePiece model: digits split, bytes as fallback, marks as whole tokens."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        split_digits=True,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=[*MARKS, *_ARITHMETIC_PIECES],
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=2,
        minloglevel=2,
    )
    return OwnTokenizer(model.getvalue())
