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
from glore_jax.parallel.placement import Placement

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
def test_each_program_takes_what_its_arguments_take_and_more(benchmark: Any, sampler: Any, width: int):
    weights = sampler.bytes(sampler.params, sampler.params_at)
    whole = sampler.bytes(sampler.params, Placement(sampler.mesh).whole)
    assert weights < 0.51 * whole  # norms alone are not split
    half = (2 // 2) * 128 * 128 * 2 * 2  # of a row: key heads, their size, columns; keys and values; bytes
    assert sampler.bytes(sampler.prefilled, sampler.prefilled_at) == benchmark.SOURCES * half  # whole on `data`
    cache = (64 // 2 + 64 // 2 // width) * half  # what each slot writes, and what each group reads
    for layout in benchmark.LAYOUTS:
        found = benchmark.programs(sampler, sampler.shapes(64, width), layout)
        assert list(found) == ["decode_chunk", "bind", "insert", "prefill"]
        assert found["decode_chunk"]["arguments"] > weights + cache
        assert cache < found["insert"]["arguments"] < found["bind"]["arguments"]
        assert all(0 < parts["arguments"] <= parts["peak"] for parts in found.values())


def test_weights_and_cache_of_eight_bits_take_half_and_are_not_turned_into_floats(benchmark: Any):
    """Of more than one layer, as the temporaries of one are there anyway."""
    config = dataclasses.replace(CONFIG, dtype="bfloat16", num_layers=4)
    machine = benchmark.Machine("v5e:2x2", (2, 2), 2**34)
    half, weights, both = (
        benchmark.Sampler(config, machine, 128, 128, *bits)
        for bits in (("same", "same"), ("int8", "same"), ("int8", "int8"))
    )
    held = [s.bytes(s.params, s.params_at) for s in (half, weights)]
    assert 0.5 * held[0] < held[1] < 0.53 * held[0]  # and scales
    prefilled = [s.bytes(s.prefilled, s.prefilled_at) for s in (half, both)]
    assert prefilled[1] * 256 == prefilled[0] * 132  # 128 numbers of a head, and their scale
    memory = [s.decode_chunk(s.shapes(16, 8), "compiler").compile().memory_analysis() for s in (half, weights)]
    assert memory[0].argument_size_in_bytes - memory[1].argument_size_in_bytes > 0.47 * held[0]
    assert memory[1].temp_size_in_bytes - memory[0].temp_size_in_bytes < 0.5 * held[0]


def test_the_cache_keeps_its_layout_over_a_chunk(sampler: Any):
    decoding = sampler.decode_chunk(sampler.shapes(64, 8), "compiler").compile()
    assert decoding.input_formats[0][1].cache == decoding.output_formats.cache


def test_twice_as_many_slots_are_refused(benchmark: Any, sampler: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(benchmark.TooLarge, match=r"Ran out of memory.* exceeds available HBM \(15\.75G\)"):
        benchmark.programs(sampler, sampler.shapes(2**18, 1), "row-major")

    def pretend(sampler: Any, shapes: Any, layout: str) -> dict[str, Any]:
        if shapes.slots > 16:
            raise benchmark.TooLarge(f"{shapes.slots} are too many")
        return {"decode_chunk": {}}

    monkeypatch.setattr(benchmark, "programs", pretend)
    found = benchmark.most_slots(sampler, 8, "compiler")
    assert (found["slots"], found["refusal"]) == (16, "32 are too many")
    assert benchmark.most_slots(sampler, 32, "compiler")["slots"] == 0  # a group has to lie on one device
