"""The base model's data: documents of the corpus as examples."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from handmade import EVEN_WEIGHTS, tokenizer
from tiny import decoder_config

from glore_jax.method import base_model
from glore_jax.models.decoder import Decoder
from glore_jax.tasks.arithmetic.corpus import Document, make_document
from glore_jax.text import formats

LINES = ("Ben = Ann + 3: <<7+3=10>> Ben 10", "#### 10")
SLIPPED = ("Ben = Ann + 3: <<7+3=11>> Ben 11", "#### 11")


def test_two_processes_make_the_documents_in_order():
    made = base_model.documents(3, 5, EVEN_WEIGHTS, 0.9, 0.2)
    assert made == [make_document(3, i, EVEN_WEIGHTS, 0.9, 0.2) for i in range(5)]
    assert made != [make_document(3, i, EVEN_WEIGHTS, 0.2, 0.9) for i in range(5)]


def test_the_tokenizer_is_that_of_the_corpus():
    corpus = [make_document(0, i, EVEN_WEIGHTS, 0.5, 0.3) for i in range(60)]
    t = base_model.train_tokenizer(corpus, 400)
    for document in corpus[:10]:
        tokens, ends = formats.encode_solution(t, document.solution)
        assert formats.steps_text(t, tokens, ends).split("\n") == list(document.solution)
        assert t.decode(t.encode(document.question)) == document.question


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_a_document_is_learnt_after_its_question(prefix_lm: bool):
    t = tokenizer()
    example = base_model.example(t, Document("How many?", (), LINES), prefix_lm)
    target, _ = formats.encode_solution(t, LINES)
    prompt = formats.encode_prompt(t, "How many?")
    assert example.tokens.tolist() == [*prompt, *target][:-1]
    assert example.prefix == (len(prompt) - 1 if prefix_lm else 0)
    assert np.sum(example.weights) == len(target)


def test_a_revised_document_is_learnt_after_its_first_attempt_without_a_critique():
    t = tokenizer()
    example = base_model.example(t, Document("How many?", SLIPPED, LINES), prefix_lm=True)
    target, _ = formats.encode_solution(t, LINES)
    attempt, ends = formats.encode_solution(t, SLIPPED)
    source = formats.encode_refiner_source(t, "How many?", attempt, ends)
    assert example.tokens.tolist() == [*source, *target][:-1]
    assert example.prefix == len(source) - 1
    assert np.sum(example.weights) == len(target), "nothing of the attempt is learnt"
    assert not {t.bad, *t.value_marks} & set(example.tokens.tolist())


def test_notes_are_learnt_after_their_story():
    t = tokenizer()
    story, notes = "Ben has 3 more nuts than Ann. Ann has 7 nuts.", ("Ann 7", "Ben = Ann + 3")
    example = base_model.example(t, Document(story, (), notes), prefix_lm=True)
    prompt, (target, ends) = formats.encode_prompt(t, story), formats.encode_solution(t, notes)
    assert example.tokens.tolist() == [*prompt, *target][:-1]
    assert example.prefix == len(prompt) - 1
    assert np.sum(example.weights) == len(target)
    assert formats.steps_text(t, target, ends).split("\n") == list(notes)


def test_fresh_parameters_are_plain_arrays_named_by_the_seed():
    model = Decoder(decoder_config())
    first, again, other = (base_model.init(model, seed) for seed in (0, 0, 1))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(first))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True))
    assert not np.array_equal(first["embedding"], other["embedding"])
