"""The programs of sampling compile for a TPU, with weights split over its devices; needs libtpu, but no TPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from glore_jax.models.decoder import DecoderConfig
from glore_jax.parallel import programs as compiling
from glore_jax.sampling import decode, layouts, programs

pytest.importorskip("libtpu", reason="the extra `tpu-compile` is not installed")

CONFIG = DecoderConfig(512, d_model=256, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=128, d_ff=512)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Without the cache of compilations: what is kept of a machine that is not there cannot be read again."""
    compilation_cache.reset_cache()
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import decode_tpu_compile

    return decode_tpu_compile


@pytest.fixture
def sampler(benchmark: Any) -> Any:
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    return benchmark.Sampler(config, benchmark.Machine("v5e:2x2", (2, 2), 2**34), prefix_columns=128, ring=128)


@pytest.mark.parametrize("width", [1, 8])
def test_each_program_takes_what_its_arguments_take_and_more(sampler: Any, width: int):
    weights = compiling.bytes_of(sampler.params)
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(sampler.params))
    assert weights < 0.51 * whole  # norms alone are not split
    half = (2 // 2) * 128 * 128 * 2 * 2  # of a row: key heads, their size, columns; keys and values; bytes
    assert compiling.bytes_of(sampler.prefilled) == 8 * half  # of eight sources, whole on `data`
    cache = (64 // 2 + 64 // 2 // width) * half  # what each slot writes, and what each group reads
    found = sampler.memory(sampler.shapes(64, width))
    assert list(found) == ["decode_chunk", "bind", "insert", "prefill"]
    assert found["decode_chunk"]["arguments"] > weights + cache
    assert cache < found["insert"]["arguments"] < found["bind"]["arguments"]
    assert all(0 < parts["arguments"] <= parts["peak"] for parts in found.values())


@pytest.mark.parametrize("cache", ["same", "int8"])
def test_prefill_reads_by_splash_attention_and_fills_the_cache(benchmark: Any, cache: str):
    """A kernel a layer, but the last, of which nothing is read; none where a prompt is read in both directions."""
    config = dataclasses.replace(CONFIG, dtype="bfloat16", num_layers=3)
    for prefix_lm, kernels in ((False, 2), (True, 0)):
        asked = dataclasses.replace(config, prefix_lm=prefix_lm)
        sampler = benchmark.Sampler(asked, benchmark.Machine("v5e:2x2", (2, 2), 2**34), 128, 128, cache=cache)
        made = sampler.prefilling
        assert made.as_text().count('custom_call_target="tpu_custom_call"') == kernels
        filled = [(x.shape, x.dtype) for x in jax.tree.leaves(made.out_info)]
        assert filled == [(x.shape, x.dtype) for x in jax.tree.leaves(sampler.prefilled)]


def test_weights_and_cache_of_eight_bits_take_half_and_are_not_turned_into_floats(benchmark: Any):
    """Of more than one layer, as the temporaries of one are there anyway."""
    config = dataclasses.replace(CONFIG, dtype="bfloat16", num_layers=4)
    machine = benchmark.Machine("v5e:2x2", (2, 2), 2**34)
    half, weights, both = (
        benchmark.Sampler(config, machine, 128, 128, *bits)
        for bits in (("same", "same"), ("int8", "same"), ("int8", "int8"))
    )
    held = [compiling.bytes_of(s.params) for s in (half, weights)]
    assert 0.5 * held[0] < held[1] < 0.53 * held[0]  # and scales
    prefilled = [compiling.bytes_of(s.prefilled) for s in (half, both)]
    assert prefilled[1] * 256 == prefilled[0] * 132  # 128 numbers of a head, and their scale
    memory = [chunk(s, s.shapes(16, 8)).memory_analysis() for s in (half, weights)]
    assert memory[0].argument_size_in_bytes - memory[1].argument_size_in_bytes > 0.47 * held[0]
    assert memory[1].temp_size_in_bytes - memory[0].temp_size_in_bytes < 0.5 * held[0]


def chunk(sampler: Any, shapes: decode.Shapes) -> Any:
    return programs.decode_chunk(sampler.model, shapes, sampler.params, sampler.place).compile()


def test_the_engine_takes_the_layout_that_decoding_wants_and_keeps_it(benchmark: Any, monkeypatch: pytest.MonkeyPatch):
    """Row by row, a chunk would copy the cache to and fro."""
    config = dataclasses.replace(benchmark.MODELS["gsm8k_llama2_7b"], num_layers=4)
    sampler = benchmark.Sampler(config, benchmark.MACHINES["v5e-8"])
    shapes = sampler.shapes(128, 1)
    decoding = layouts.Programs(sampler.model, shapes, sampler.params, sampler.place).chunk
    assert decoding is not None and decoding.input_formats[0][1].cache == decoding.output_formats.cache
    monkeypatch.setattr(programs, "compiler_chooses", lambda place: False)
    row_major = chunk(sampler, shapes)
    assert decoding.output_formats.cache != row_major.output_formats.cache
    less = row_major.memory_analysis().temp_size_in_bytes - decoding.memory_analysis().temp_size_in_bytes
    slots = programs.slots(sampler.model, shapes, sampler.place)
    assert less > compiling.bytes_of(slots.cache) / 4  # most of the new columns, which are half of it


def test_twice_as_many_slots_are_refused(benchmark: Any, sampler: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(benchmark.TooLarge, match=r"Ran out of memory.* exceeds available HBM \(15\.75G\)"):
        sampler.memory(sampler.shapes(2**18, 1))

    def pretend(shapes: decode.Shapes) -> dict[str, Any]:
        if shapes.slots > 16:
            raise benchmark.TooLarge(f"{shapes.slots} are too many")
        return {"decode_chunk": {}}

    monkeypatch.setattr(sampler, "memory", pretend)
    found = benchmark.most_slots(sampler, 8)
    assert (found["slots"], found["refusal"]) == (16, "32 are too many")
    assert benchmark.most_slots(sampler, 32)["slots"] == 0  # a group has to lie on one device
