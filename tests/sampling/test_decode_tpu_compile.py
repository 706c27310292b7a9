"""The programs of sampling compile for a TPU, with weights split over its devices; needs libtpu, but no TPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from glore_jax.models.decoder import DecoderConfig
from glore_jax.parallel import rules

pytest.importorskip("libtpu", reason="the extra `tpu-compile` is not installed")

CONFIG = DecoderConfig(512, d_model=256, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=128, d_ff=512)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import decode_tpu_compile

    return decode_tpu_compile


@pytest.fixture
def sampler(benchmark: Any) -> Any:
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    return benchmark.Sampler(config, benchmark.Machine("v5e:2x2", (2, 2), 2**34), bucket=128, new=128)


def test_each_program_takes_what_its_arguments_take_and_more(benchmark: Any, sampler: Any):
    weights = sampler.bytes(sampler.params, sampler.params_at)
    whole = sampler.bytes(sampler.params, rules.replicated(sampler.mesh))
    assert weights < 0.51 * whole  # norms alone are not split
    cache = (64 // 2) * (2 // 2) * 128 * 256 * 2 * 2  # slots, key heads, their size, columns; keys and values; bytes
    half = benchmark.SOURCES * (2 // 2) * 128 * 128 * 2 * 2
    assert sampler.bytes(sampler.prefilled, sampler.prefilled_at) == half  # whole on `data`, split by head
    for layout in benchmark.LAYOUTS:
        found = benchmark.programs(sampler, 64, layout)
        assert list(found) == ["decode_chunk", "insert", "prefill"]
        assert found["decode_chunk"]["arguments"] > weights + cache
        assert cache < found["insert"]["arguments"] < found["insert"]["peak"]
        assert all(0 < parts["arguments"] <= parts["peak"] for parts in found.values())


def test_twice_as_many_slots_are_refused(benchmark: Any, sampler: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(benchmark.TooLarge, match=r"RESOURCE_EXHAUSTED.* exceeds available HBM \(15\.75G\)"):
        benchmark.programs(sampler, 2**18, "row-major")

    def pretend(sampler: Any, count: int, layout: str) -> dict[str, Any]:
        if count > 16:
            raise benchmark.TooLarge(f"{count} are too many")
        return {"decode_chunk": {}}

    monkeypatch.setattr(benchmark, "programs", pretend)
    found = benchmark.most_slots(sampler, "compiler")
    assert (found["slots"], found["refusal"]) == (16, "32 are too many")
