"""Sampling with weights and cache of eight bits: the same whatever the batch, near what it is in float32, and small."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder
from glore_jax.models.quantised import Int8
from glore_jax.parallel import placement
from glore_jax.sampling import decode, memory, precision
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Completion, Request, Source

KEY = jax.random.key(7)
BOTH = {"weights": "int8", "cache": "int8"}


def requests_of(count: int = 6, each: int = 4, temperature: float = 1.0) -> list[Request]:
    draw = np.random.default_rng(3)
    sources = [Source(draw.integers(3, tiny.VOCAB, size).tolist()) for size in draw.integers(2, 12, count)]
    return [Request(f"r{i}/{k}", s, len(s.tokens), temperature) for i, s in enumerate(sources) for k in range(each)]


def sampled(temperature: float = 1.0, **changes: Any) -> list[Completion]:
    return tiny.engine(buckets=(12,), **changes).generate(requests_of(temperature=temperature), KEY)


def off_by(found: list[Completion], expected: list[Completion]) -> float:
    """The mean distance of log-probabilities, of the tokens up to the first that differs."""
    apart = []
    for mine, yours in zip(found, expected, strict=True):
        for token, other, p, q in zip(mine.tokens, yours.tokens, mine.logprobs, yours.logprobs, strict=False):
            if token != other:
                break
            apart.append(abs(p - q))
    assert len(apart) > 80  # of 240 tokens
    return float(np.mean(apart))


@pytest.fixture(scope="module")
def exact() -> list[Completion]:
    return sampled()


@pytest.mark.parametrize("key", ["dtype", "weights", "cache"])
def test_a_precision_that_is_none_is_refused(key: str):
    with pytest.raises(InputError, match=rf"sampling\.{key}='int4': expected one of .*"):
        tiny.engine(**{key: "int4"})


def test_matrices_are_kept_in_eight_bits_and_norms_as_they_were():
    _, params = tiny.random_decoder()
    kept = precision.kept(params, tiny.sampling(dtype="bfloat16", **BOTH))
    assert isinstance(kept["embedding"], Int8)
    assert kept["embedding"].scale.shape == (tiny.VOCAB, 1)
    assert kept["attention_1"]["wo"].scale.shape == (1, 16)
    assert kept["final_norm"]["scale"].dtype == np.float32
    matrices = [x for x in jax.tree.leaves(kept) if x.ndim > 1]
    assert sum(x.size for x in matrices if x.dtype == np.int8) == sum(
        x.size for x in jax.tree.leaves(params) if x.ndim > 1
    )
    same = precision.kept(params, tiny.sampling())
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, same, params))
    half = precision.kept(params, tiny.sampling(dtype="bfloat16"))
    assert {(x.ndim, x.dtype.name) for x in jax.tree.leaves(half)} == {(1, "float32"), (2, "bfloat16")}


def test_eight_bit_weights_sample_as_the_numbers_they_stand_for():
    model, params = tiny.random_decoder()
    kept = precision.kept(params, tiny.sampling(weights="int8"))
    real = jax.tree.map(
        lambda w: np.asarray(w.values, np.float32) * np.asarray(w.scale) if isinstance(w, Int8) else w,
        kept,
        is_leaf=lambda w: isinstance(w, Int8),
    )
    expected = Engine(model, real, tiny.sampling(buckets=(12,)), tiny.EOS, tiny.PAD).generate(requests_of(), KEY)
    found = sampled(weights="int8")
    assert [c.tokens for c in found] == [c.tokens for c in expected]
    assert off_by(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("changes", "nats"), [({"weights": "int8"}, 0.2), ({"cache": "int8"}, 0.1), ({"dtype": "bfloat16"}, 0.1)], ids=str
)
def test_log_probabilities_are_near_those_of_float32(exact: list[Completion], changes: dict[str, str], nats: float):
    """These weights are three times what a decoder starts with, so its logits go from about -10 to 10."""
    found = sampled(**changes)
    assert 0 < off_by(found, exact) < nats


def test_eight_bits_give_the_same_tokens_in_any_slot_and_order():
    requests = requests_of()
    expected = {r.id: c.tokens for r, c in zip(requests, sampled(**BOTH), strict=True)}
    order = np.random.default_rng(2).permutation(len(requests))
    mixed = [requests[i] for i in order]
    for changes in ({"slots": 2, "chunk": 1}, {"slots": 16, "sources": 4, "chunk": 10}):  # groups of 1 and 4
        found = tiny.engine(buckets=(12,), **BOTH, **changes).generate(mixed, KEY)
        assert {r.id: c.tokens for r, c in zip(mixed, found, strict=True)} == expected


def test_what_was_written_is_read_again_as_a_prefix_as_it_was():
    """Prefill and decoding write the same columns: what goes on from the middle of a sample goes on as the sample."""
    engine = tiny.engine(buckets=(12,), **BOTH)
    whole = Request("whole", Source([5, 9, 30]), 3)
    (written,) = engine.generate([whole], KEY)
    assert len(written.tokens) == 10
    cuts = range(1, 9)
    sources = [Source([5, 9, 30, *written.tokens[:cut]]) for cut in cuts]
    found = engine.generate([Request(f"cut {cut}", s, 3 + cut) for cut, s in zip(cuts, sources, strict=True)], KEY)
    for cut, rest in zip(cuts, found, strict=True):
        assert rest.tokens[: 10 - cut] == written.tokens[cut:]


def test_memory_counts_the_bits_and_their_scales():
    config = tiny.decoder_config()  # 2 layers, 2 key heads of 8 numbers; keys and values
    for cache, each in (("same", 8 * 4), ("int8", 8 + 4)):
        settings = tiny.sampling(cache=cache)
        few, more = (memory.taken(config, settings, 2 * slots, placement.make()) for slots in (4, 8))  # two devices
        assert few["sources"] == 2 * 12 * (2 * 2 * 2 * each)
        beside = (more["slots"] - few["slots"]) // 4 - (12 + 10) * (2 * 2 * 2 * each)
        assert 0 < beside < 200  # what is known of each slot


def test_the_loop_of_decoding_steps_is_handed_integers():
    """Floats are made of them within a step, not before the first; test_decode_tpu_compile has the memory on a TPU."""
    config = tiny.decoder_config(d_model=64, num_layers=1, d_ff=512)
    shapes = decode.Shapes(2, 1, 2, 8, 8, 3, tiny.EOS, tiny.PAD)
    params = jax.eval_shape(lambda: decoder.init(Decoder(config), jax.random.key(0)))
    kept = jax.eval_shape(lambda tree: precision.kept(tree, tiny.sampling(weights="int8")), params)
    slots = jax.eval_shape(lambda: decode.empty(config, shapes))
    key = jax.eval_shape(lambda: jax.random.key(0))
    whole = decode.decode_chunk.lower(Decoder(config), shapes, kept, slots, key).compile().as_text()
    around = whole[whole.index("ENTRY") :]
    assert "s8[64,512]" in around
    assert "f32[64,512]" not in around
    assert "f32[64,512]" in whole
