"""The base model: what LLaMA-2 is to the paper, made from the embedded task's corpus."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

import jax

from glore_jax.models import decoder, recall_init
from glore_jax.models.decoder import Decoder
from glore_jax.tasks.arithmetic.corpus import Document, make_document
from glore_jax.text import formats, tokenizers
from glore_jax.text.tokenizers import OwnTokenizer, Tokenizer
from glore_jax.training.batches import Example, language_example


def _chunk(job: tuple[int, int, int, tuple[float, ...], float, float]) -> list[Document]:
    seed, first, last, step_weights, revised_share, notes_share = job
    return [make_document(seed, i, step_weights, revised_share, notes_share) for i in range(first, last)]


def documents(
    seed: int, count: int, step_weights: Sequence[float], revised_share: float, notes_share: float
) -> list[Document]:
    """The first `count` documents of the corpus, made by two processes."""
    size = 2000
    shares = (tuple(step_weights), revised_share, notes_share)
    jobs = [(seed, a, min(a + size, count), *shares) for a in range(0, count, size)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return [document for chunk in pool.imap(_chunk, jobs) for document in chunk]


def train_tokenizer(corpus: Sequence[Document], vocab_size: int) -> OwnTokenizer:
    """A SentencePiece tokenizer of the corpus (its first few thousand documents are plenty)."""
    texts = (text for d in corpus[:4000] for text in (d.question, *d.solution))
    return tokenizers.train(texts, vocab_size)


def example(tokenizer: Tokenizer, document: Document, prefix_lm: bool) -> Example:
    """Loss on the solution alone: after the question, or after the question and a first attempt.

    Args:
      prefix_lm: whether what comes before the solution is read in both directions.
    """
    target, _ = formats.encode_solution(tokenizer, document.solution)
    if not document.attempt:
        prompt = formats.encode_prompt(tokenizer, document.question)
        return language_example(prompt, target, prefix_lm, problem=document.question)
    attempt, ends = formats.encode_solution(tokenizer, document.attempt)
    source = formats.encode_refiner_source(tokenizer, document.question, attempt, ends)
    return language_example(source, target, prefix_lm, problem=document.question)


def init(model: Decoder, seed: int) -> Any:
    """Fresh parameters with heads that recall (see `models.recall_init`)."""
    key = jax.random.key(seed)
    return recall_init.apply(decoder.init(model, key), model.config, key)
