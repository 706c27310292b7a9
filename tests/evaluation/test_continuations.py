"""How likely continuations are is what the logits say, in whatever batch; and what tasks ask for is done or refused."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.evaluation import continuations
from glore_jax.evaluation.continuations import Continuation, Writing, loglikelihoods
from glore_jax.models.decoder import CausalLM, Decoder
from glore_jax.sampling.requests import Request, Source

LONGEST = 90


@functools.cache
def logprobs() -> tuple[list[Continuation], np.ndarray]:
    """Continuations of many lengths, and the log-probabilities [N, T, V] of what follows each of their tokens."""
    rng = np.random.default_rng(0)
    asked = []
    for _ in range(11):
        length = int(rng.integers(2, LONGEST))
        asked.append(Continuation(tuple(rng.integers(3, tiny.VOCAB, length).tolist()), int(rng.integers(1, length))))
    tokens_NxT = np.zeros((len(asked), LONGEST), np.int32)
    for n, one in enumerate(asked):
        tokens_NxT[n, : len(one.tokens)] = one.tokens
    model, params = tiny.random_decoder()
    logits = np.asarray(jax.jit(CausalLM(model).apply)({"params": params}, tokens_NxT), np.float64)
    return asked, logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_sums_are_those_of_the_logits(rows: int):
    asked, expected_NxTxV = logprobs()
    done: list[int] = []
    found = loglikelihoods(*tiny.random_decoder(), asked, rows, done.append)
    assert sum(done) == len(asked)
    for n, (one, (total, greedy)) in enumerate(zip(asked, found, strict=True)):
        places = range(one.given, len(one.tokens))
        assert total == pytest.approx(sum(expected_NxTxV[n, i - 1, one.tokens[i]] for i in places), rel=1e-4)
        assert greedy == all(expected_NxTxV[n, i - 1].argmax() == one.tokens[i] for i in places)


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_what_was_written_greedily_is_as_likely_as_the_sampler_said(prefix_lm: bool):
    engine = tiny.engine(prefix_lm)
    sources = [[5, 9, 33, 20, 7], [40, 41], [12, 3, 60, 8, 8, 8, 17]]
    requests = [Request(str(n), Source(source), len(source)) for n, source in enumerate(sources)]
    written = engine.generate(requests, jax.random.key(0))
    model, params = tiny.random_decoder()
    model = Decoder(dataclasses.replace(model.config, prefix_lm=prefix_lm))
    asked = [Continuation.of(s, w.tokens, 100) for s, w in zip(sources, written, strict=True)]
    found = loglikelihoods(model, params, asked, rows=2)
    for w, (total, greedy) in zip(written, found, strict=True):
        assert greedy and total == pytest.approx(w.logprob, rel=1e-4)
    last = asked[0].tokens[-1]
    other = dataclasses.replace(asked[0], tokens=(*asked[0].tokens[:-1], 3 if last != 3 else 4))
    ((less, greedy),) = loglikelihoods(model, params, [other], rows=2)
    assert not greedy and less < found[0][0]


def test_many_lengths_take_few_compilations():
    model, params = tiny.random_decoder(vocab_size=67)  # of this test alone, so the count is its own
    before = continuations._read._cache_size()
    loglikelihoods(model, params, [Continuation((5,) * n, 1) for n in range(2, 130)], rows=4)
    assert continuations._read._cache_size() - before == 2  # of 64 and of 128 columns


def test_a_long_context_loses_its_beginning():
    assert Continuation.of([1, 2, 3], [4, 5], 9) == Continuation((1, 2, 3, 4, 5), 3)
    assert Continuation.of([1, 2, 3], [4, 5], 4) == Continuation((1, 2, 3, 4, 5), 3)  # the last is never read
    assert Continuation.of([1, 2, 3], [4, 5], 2) == Continuation((3, 4, 5), 1)
    with pytest.raises(InputError, match=r"a continuation has 3 tokens, and the model reads 2; give a larger --max-le"):
        Continuation.of([1], [2, 3, 4], 2)
    with pytest.raises(InputError, match="a context has no token, being white space alone"):
        Continuation.of([], [2], 9)


def test_an_empty_continuation_is_certain():
    assert loglikelihoods(*tiny.random_decoder(), [Continuation.of([5], [], 9)], rows=1) == [(0.0, True)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Writing((), 256, 0.0)),
        ({"until": ["\n"], "do_sample": False, "temperature": 0.0}, Writing(("\n",), 256, 0.0)),
        ({"until": "###", "max_gen_toks": 9, "do_sample": True, "temperature": 0.7}, Writing(("###",), 9, 0.7)),
        ({"max_new_tokens": 7, "temperature": 0.5}, Writing((), 7, 0.5)),
        ({"do_sample": False, "temperature": 0.9, "top_p": 0.95}, Writing((), 256, 0.0)),
        ({"temperature": 0.9, "top_p": 0.95, "top_k": 40}, Writing((), 256, 0.9, 40, 0.95)),
    ],
)
def test_what_a_task_asks_for(settings: dict[str, Any], expected: Writing):
    given = dict(settings)
    assert Writing.of(settings) == expected
    assert settings == given  # the task's own


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 4}, r"num_beams=4 is not something that the sampler does; expected until, .* remove num_beams"),
        ({"temperature": 0.5, "min_p": 0.9}, r"min_p=0.9 is not something"),
        ({"do_sample": True}, r"do_sample=True with a temperature of 0; give a temperature above 0"),
    ],
)
def test_what_the_sampler_does_not_do_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        Writing.of(settings)


def test_a_text_is_cut_before_the_first_of_its_ends():
    writing = Writing(("", "\n\n", "Q:"), 9, 0.0)
    assert writing.cut("a\nb Q: c\n\nd") == "a\nb "
    assert writing.cut("a\nb") == "a\nb"
    assert writing.cut("Q:") == ""
