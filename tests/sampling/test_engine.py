"""The one sampler: equal to plain decoding, and equal to itself whatever the batch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.models import decoder, kernels
from glore_jax.models.visibility import Visibility
from glore_jax.sampling import decode, draws
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Completion, Request, Source, name_words

KEY = jax.random.key(7)
MOST = tiny.sampling().max_new_tokens


def make_sources(count: int, seed: int = 0, longest: int = 12) -> list[Source]:
    rng = np.random.default_rng(seed)
    return [Source(rng.integers(3, tiny.VOCAB, rng.integers(1, longest + 1)).tolist()) for _ in range(count)]


def make_requests(sources: Sequence[Source], each: int = 2, temperature: float = 1.0) -> list[Request]:
    """`each` samples of every whole source."""
    return [Request(f"q{i}/{k}", s, len(s.tokens), temperature) for i, s in enumerate(sources) for k in range(each)]


@jax.jit
def _next(params: Any, tokens_1xT: jax.Array, sizes: tuple, name_2: jax.Array, temperature: jax.Array) -> Any:
    """The next token after the first `length` ones and its log-probability, by a full forward pass."""
    length, prompt, both_ways = sizes
    model, _ = tiny.random_decoder()
    places = jnp.arange(tokens_1xT.shape[1])[None]
    visible = Visibility((places < length).astype(jnp.int32), places < both_ways)
    hidden, _ = model.apply({"params": params}, tokens_1xT, places, visible)
    logits = decoder.logits(params, hidden[0, length - 1])
    uniform = draws.uniforms(KEY, name_2[None], (length - prompt)[None])
    token = draws.draw(logits[None], uniform, temperature[None])[0]
    return token, jax.nn.log_softmax(logits)[token]


def plain(request: Request, both_ways: int = 0) -> Completion:
    """The definition: a full forward pass over everything for each new token, one sequence at a time.

    Args:
      both_ways: how many leading tokens see each other in both directions.
    """
    prompt = request.source.tokens[: request.length]
    tokens, logprobs = list(prompt), []
    name = np.asarray(name_words(request.id), np.uint32)
    for _ in range(MOST):
        padded = np.zeros((1, 12 + MOST), np.int32)
        padded[0, : len(tokens)] = tokens
        sizes = tuple(np.int32(n) for n in (len(tokens), len(prompt), both_ways))
        params, temperature = tiny.random_decoder()[1], np.float32(request.temperature)
        token, nats = _next(params, padded, sizes, name, temperature)
        logprobs.append(float(nats))
        tokens.append(int(token))
        if token == tiny.EOS:
            break
    new = tuple(tokens[len(prompt) :])
    return Completion(new, "end" if new[-1] == tiny.EOS else "limit", tuple(logprobs))


def assert_same(found: Sequence[Completion], expected: Sequence[Completion]) -> None:
    assert [c.tokens for c in found] == [c.tokens for c in expected]
    assert [c.reason for c in found] == [c.reason for c in expected]
    for mine, yours in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.logprobs, yours.logprobs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prefix_lm", [False, True])
def test_cached_decoding_is_plain_decoding(prefix_lm: bool):
    """More requests than slots, ragged, greedy and sampled side by side."""
    sources = make_sources(9)
    requests = [
        Request(f"q{i}/{k}", s, len(s.tokens), temperature)
        for i, s in enumerate(sources)
        for k, temperature in enumerate((0.0, 1.0, 1.7))
    ]
    found = tiny.engine(prefix_lm).generate(requests, KEY)
    expected = [plain(r, r.length - 1 if prefix_lm else 0) for r in requests]
    assert_same(found, expected)
    assert len({c.tokens for c in found}) > 10  # the test would see a mix-up
    assert {c.finished for c in expected} == {True, False}
    assert len({len(c.tokens) for c in expected}) > 2


@pytest.mark.parametrize(("each", "slots"), [(1, 4), (2, 8), (5, 16)])  # groups of 1, 4 and 8
@pytest.mark.parametrize("prefix_lm", [False, True])
def test_a_rollout_from_a_branch_is_a_sample_of_that_prefix(prefix_lm: bool, each: int, slots: int):
    """Shared prefill, each request to its own branch point, against every prefix as a source of its own."""
    long = [s.tokens for s in make_sources(8, seed=3) if len(s.tokens) > 5][:3]
    # The branches lie in what follows the question.
    sources = [Source(tokens, given) for tokens, given in zip(long, (3, 1, 5), strict=True)]
    requests = [
        Request(f"t{i}/{length}/{k}", source, length, 1.0)
        for i, source in enumerate(sources)
        for length in range(source.given or 0, len(source.tokens) + 1, 3)
        for k in range(each)
    ]
    found = tiny.engine(prefix_lm, slots=slots).generate(requests, KEY)
    assert_same(found, [plain(r, (r.source.given or 0) - 1 if prefix_lm else 0) for r in requests])
    alone = [
        dataclasses.replace(r, source=Source(r.source.tokens[: r.length], r.source.given), length=r.length)
        for r in requests
    ]
    assert_same(tiny.engine(prefix_lm).generate(alone, KEY), found)


@pytest.fixture(scope="module")
def forty() -> tuple[list[Request], list[Completion]]:
    requests = make_requests(make_sources(20, seed=1))
    return requests, tiny.engine().generate(requests, KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"slots": 2, "chunk": 1},
        pytest.param({"slots": 16, "sources": 6, "chunk": 10}, marks=pytest.mark.slow),
        pytest.param({"sources": 6, "buckets": (12,)}, marks=pytest.mark.slow),
        {"buckets": (6, 16)},
    ],
    ids=str,
)
def test_samples_do_not_depend_on_the_batch(forty, changes: dict):
    requests, expected = forty
    assert_same(tiny.engine(**changes).generate(requests, KEY), expected)


def test_samples_do_not_depend_on_order_or_company(forty):
    requests, expected = forty
    order = np.random.default_rng(2).permutation(len(requests))
    found = tiny.engine().generate([requests[i] for i in order], KEY)
    assert_same(found, [expected[i] for i in order])
    few = [requests[i] for i in order[:3]]
    assert_same(tiny.engine().generate(few, KEY), [expected[i] for i in order[:3]])


def test_prefill_by_splash_attention_is_prefill(forty, monkeypatch: pytest.MonkeyPatch):
    """Interpreted, as no TPU is here; the sizes are of this test alone, so that it is compiled anew."""
    requests, expected = forty
    calls, whole = [], kernels.splash
    monkeypatch.setitem(kernels.BEST, "cpu", "splash")
    monkeypatch.setattr(kernels, "splash", lambda *given: calls.append(1) or whole(*given))
    assert_same(tiny.engine(sources=4, buckets=(13,)).generate(requests, KEY), expected)
    assert len(calls) == 2  # a layer each


def test_samples_depend_on_key_and_name(forty):
    requests, expected = forty
    other = tiny.engine().generate(requests, jax.random.key(8))
    assert sum(a.tokens == b.tokens for a, b in zip(other, expected, strict=True)) < 20
    pairs = [(expected[i].tokens, expected[i + 1].tokens) for i in range(0, 40, 2)]
    assert sum(a == b for a, b in pairs) < 10  # two samples of a question


_ON_ONE_DEVICE = """
import json, sys
import jax
sys.path[:0] = sys.argv[1:]
import tiny, test_engine
assert jax.device_count() == 1
sources = test_engine.make_sources(20, seed=1)
found = tiny.engine().generate(test_engine.make_requests(sources), jax.random.key(7))
print(json.dumps([c.tokens for c in found]))
"""


def test_samples_do_not_depend_on_the_number_of_devices(forty):
    assert jax.device_count() == 2
    here = Path(__file__).parent
    command = [sys.executable, "-c", _ON_ONE_DEVICE, str(here.parent), str(here)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [tuple(tokens) for tokens in json.loads(done.stdout)] == [c.tokens for c in forty[1]]


def test_progress_counts_every_request_and_token(forty):
    requests, expected = forty
    seen: list[tuple[int, int]] = []
    tiny.engine().generate(requests, KEY, lambda *counts: seen.append(counts))
    assert sum(n for n, _ in seen) == len(requests)
    assert sum(tokens for _, tokens in seen) == sum(len(c.tokens) for c in expected)
    assert len(seen) > 5  # slots are refilled as they come free, not batch by batch


def test_no_requests_are_no_work():
    assert tiny.engine().generate([], KEY) == []


def test_a_source_that_is_too_long_names_its_request():
    sources = [Source([5] * 4), Source([6] * 13), Source([7] * 12), Source([8] * 20)]
    expected = r"request q1/0: its source has 13 tokens, .*bucket 12; raise sampling\.buckets .*\(2 such .*: q1/0, q3/0"
    with pytest.raises(InputError, match=expected):
        tiny.engine().generate(make_requests(sources, 1), KEY)


def test_a_request_writes_no_more_than_its_limit(forty):
    requests, expected = forty
    limited = [dataclasses.replace(r, limit=1 + n % MOST) for n, r in enumerate(requests)]
    found = tiny.engine().generate(limited, KEY)
    assert [c.tokens for c in found] == [c.tokens[: 1 + n % MOST] for n, c in enumerate(expected)]
    assert [c.finished for c in found] == [c.tokens[-1] == tiny.EOS for c in found]
    assert any(len(a.tokens) < len(b.tokens) for a, b in zip(found, expected, strict=True))


def test_what_was_not_written_does_not_end_a_text(forty):
    """The columns behind a limit hold zeros, and zero may be the end token, as GPT-NeoX has it."""
    requests, expected = forty
    limited = [dataclasses.replace(r, limit=MOST // 2) for r in requests]
    engine = Engine(*tiny.random_decoder(), tiny.sampling(), eos=0, pad=0)
    found = engine.generate(limited, KEY)
    whole = [
        c for c, e in zip(found, expected, strict=True) if 0 not in e.tokens[: MOST // 2] and e.tokens[-1] != tiny.EOS
    ]
    assert len(whole) > 10
    assert {(len(c.tokens), c.finished) for c in whole} == {(MOST // 2, False)}


@pytest.mark.parametrize("limit", [0, MOST + 1])
def test_a_limit_that_cannot_be_is_refused(limit: int):
    with pytest.raises(InputError, match=rf"request q: it may write {limit} tokens; expected 1 to .*={MOST}"):
        tiny.engine().generate([Request("q", Source([5]), 1, limit=limit)], KEY)


def test_a_prefix_is_as_long_as_it_is_kept():
    """A source that fits no bucket, continued from branches that do."""
    source = Source(list(make_sources(1, seed=4)[0].tokens) * 4, 2)
    requests = [Request(f"t/{length}", source, length, 1.0) for length in (2, 6, 12)]
    assert_same(tiny.engine().generate(requests, KEY), [plain(r) for r in requests])


@pytest.mark.parametrize("name", ["slots", "sources"])
def test_rows_that_do_not_divide_by_the_devices_are_refused(name: str):
    with pytest.raises(InputError, match=rf"sampling\.{name}=5 .* the 2 devices"):
        tiny.engine(**{name: 5})


def test_nothing_is_compiled_twice_for_one_bucket():
    """1,000 ragged requests at many temperatures and cuts; the sizes, and so the counts, are of this test alone."""
    sources = make_sources(50, seed=5, longest=11)
    requests = [
        Request(
            f"r{i}", sources[i % 50], 1 + i % len(sources[i % 50].tokens), (i % 5) / 4, top_k=i % 7, top_p=1 - i % 3 / 4
        )
        for i in range(1000)
    ]
    functions = (decode.prefill, decode.bind, decode.insert, decode.decode_chunk)
    before = [f._cache_size() for f in functions]
    engine = tiny.engine(slots=6, chunk=4, buckets=(5, 11))
    engine.generate(requests, KEY)
    once = [f._cache_size() - n for f, n in zip(functions, before, strict=True)]
    assert max(once) <= 2  # two buckets
    engine.generate(requests[::-1], jax.random.key(1))
    tiny.engine(slots=6, chunk=4, buckets=(5, 11), seed=1).generate(requests[:50], KEY)  # other weights
    assert [f._cache_size() - n for f, n in zip(functions, before, strict=True)] == once


def test_few_requests_of_many_lengths_share_one_compilation(forty):
    requests, expected = forty
    before = decode.decode_chunk._cache_size()
    few = tiny.engine(slots=24, buckets=(4, 8, 12)).generate(requests, KEY)
    assert decode.decode_chunk._cache_size() - before == 1
    assert_same(few, expected)
