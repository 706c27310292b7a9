"""A step of training is the same under every preset; `test_presets.py` runs this where there are eight devices.

Sums of other orders differ in their last bits: the tolerances are on float32 numbers of about one.
"""

from __future__ import annotations

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from glore_jax.models import decoder, execution, stacking, value_head
from glore_jax.models.decoder import Decoder
from glore_jax.parallel import collectives, placement, programs
from glore_jax.parallel import mesh as meshes
from glore_jax.parallel.placement import Placement
from glore_jax.sampling import decode, memory
from glore_jax.sampling import programs as sampling_programs
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Request, Source
from glore_jax.training import batches, beginning, losses
from glore_jax.training.footprint import footprint

pytestmark = pytest.mark.usefixtures("standard_promotion")

CONFIG = tiny.decoder_config(d_model=32, num_heads=8, num_kv_heads=4, head_dim=8, d_ff=64)
LORA = {"lora": {"rank": 2, "alpha": 4.0, "layers": ("wq", "wo", "up", "down", "unembedding")}}
MARKS = (50, 51)  # whose rows learn beside an adapter
PRESETS = {
    "replicated": {"preset": "replicated"},
    "fsdp": {"preset": "fsdp"},
    "tensor": {"preset": "tensor", "tensor": 4},
    "fsdp+tensor": {"preset": "fsdp+tensor", "fsdp": 2, "tensor": 2},
    "sequence": {"preset": "fsdp", "fsdp": 2, "sequence": 2},
}


def placed(preset: str) -> Placement:
    sizes = {"sampling": "", "rules": (), "data": 0, "fsdp": 0, "tensor": 0, "sequence": 0}
    return placement.make(sizes | PRESETS[preset])


def one_device() -> Placement:
    return Placement(Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), meshes.AXES))


@functools.cache
def start() -> Any:
    params = decoder.init(Decoder(CONFIG), jax.random.key(0))
    params = jax.tree.map(lambda x: np.asarray(3.0 * x if x.ndim > 1 else x), params)
    return {"decoder": params, "value_head": jax.device_get(value_head.init(jax.random.key(1), CONFIG.d_model, True))}


@functools.cache
def batch(loss: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(40):
        tokens = rng.integers(3, tiny.VOCAB, rng.integers(8, 24)).tolist()
        if loss == "language":
            made.append(batches.language_example(tokens[:4], tokens[4:]))
        else:
            made.append(batches.value_example(tokens[:3], tokens[3:], [2, 5], rng.integers(0, 2, 2).tolist()))
    return next(batches.epochs(made, 32, 16, seed=0))


LOSSES = {"language": losses.language, "value": functools.partial(losses.value, language=0.1)}


def settings_of(**changes: Any) -> Any:
    return tiny.training(rows=16, row_length=32, learning_rate=0.1, warmup=0.0, **changes)


def begun(loss: str, place: Placement, **changes: Any) -> beginning.Beginning:
    params = start() if loss == "value" else {"decoder": start()["decoder"]}
    settings = settings_of(**changes)
    beginning.check("train", settings, place)
    return beginning.begin(Decoder(CONFIG), params, LOSSES[loss], settings, 4, place, jax.random.key(0), MARKS)


def stepped(loss: str, place: Placement, **changes: Any) -> tuple[Any, Any]:
    """The state and the metrics after a step."""
    begin = begun(loss, place, **changes)
    return begin.laid.step(begin.state, place.put(batch(loss), "batch", "positions"), begin.frozen, np.inf)


@functools.cache
def alone(loss: str, optimizer: str = "adamw", adapter: bool = False) -> tuple[Any, Any]:
    """What one device computes."""
    return jax.device_get(stepped(loss, one_device(), optimizer=optimizer, **(LORA if adapter else {})))


def gradients(state: Any) -> Any:
    """After one step of AdamW: its first moment is a tenth of them (clipped)."""
    moments = [s.mu for s in jax.tree.leaves(state.opt_state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")]
    return jax.tree.map(lambda mu: 10.0 * np.asarray(mu), moments[0])


def assert_close(found: Any, expected: Any, rtol: float, atol: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), jax.device_get(found), expected)


def slow_but(*quick: str) -> list[Any]:
    """All presets, of which only some are tried every time: each takes many seconds to compile."""
    return [preset if preset in quick else pytest.param(preset, marks=pytest.mark.slow) for preset in PRESETS]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("preset", slow_but("fsdp+tensor", "sequence"))
def test_a_step_is_that_of_one_device(preset: str, loss: str):
    place = placed(preset)
    state, metrics = stepped(loss, place)
    expected, figures = alone(loss)
    assert_close(metrics, figures, rtol=1e-5, atol=1e-6)
    assert_close(gradients(state), gradients(expected), rtol=1e-4, atol=1e-6)  # their norm is 1
    # Adam makes a step of the sign of the smallest gradient: where that is as good as zero it may be either.
    sure = jax.tree.map(lambda g: (np.abs(g) > 1e-6) | (g == 0), gradients(expected))
    moved = jax.tree.map(lambda a, b, ok: np.where(ok, a - b, 0.0), jax.device_get(state.params), expected.params, sure)
    assert max(np.abs(x).max() for x in jax.tree.leaves(moved)) < 1e-4  # of steps of 0.1


@pytest.mark.parametrize("preset", slow_but("fsdp+tensor"))
def test_a_step_of_an_adapter_is_that_of_one_device(preset: str):
    """Its A and B are whole everywhere; what stays beside them, and the rows of marks are taken from, is split."""
    state, metrics = stepped("value", placed(preset), **LORA)
    expected, figures = alone("value", adapter=True)
    assert set(state.params) == {"adapter", "rows", "value_head"}
    assert_close(metrics, figures, rtol=1e-5, atol=1e-6)
    assert_close(gradients(state), gradients(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("preset", ["fsdp", "fsdp+tensor"])
def test_muon_is_right_on_matrices_in_parts(preset: str):
    state, _ = stepped("language", placed(preset), optimizer="muon")
    expected, _ = alone("language", "muon")
    assert_close(state.params, expected.params, rtol=1e-3, atol=1e-4)  # of steps of 0.1


def test_micro_batches_make_the_step_of_the_whole_batch():
    """Though their weights differ, of labelled steps and of tokens: a mean of means would not be the mean."""
    scan = {"scan": True, "remat": "full"}
    for loss, preset, changes in (("value", "fsdp+tensor", {}), ("value", "fsdp", scan), ("language", "fsdp", {})):
        parts = batch(loss)["weights"].reshape(8, 2, -1).sum(axis=(0, 2))
        assert len(set(parts.tolist())) > 1
        expected, figures = alone(loss)
        state, metrics = stepped(loss, placed(preset), micro_batches=2, **changes)
        assert_close(metrics, figures, rtol=1e-5, atol=1e-6)
        assert_close(stacking.unstack_layers(gradients(state)), gradients(expected), rtol=1e-4, atol=1e-6)


def test_scanned_layers_lie_in_parts_and_leave_one_by_one():
    place = placed("fsdp+tensor")
    begin = begun("language", place, scan=True, remat="full")
    gates = begin.state.params["decoder"]["layers"]["mlp_0"]["gate"]
    assert {shard.data.shape for shard in gates.addressable_shards} == {(2, 16, 32)}
    params = begin.laid.finish(begin.state.params, begin.frozen)
    assert_close(params, {"decoder": start()["decoder"]}, rtol=0, atol=0)
    assert params["decoder"]["mlp_1"]["gate"].sharding == place.at("embed", "mlp")
    state, metrics = begin.laid.step(begin.state, place.put(batch("language"), "batch", "positions"), {}, np.inf)
    assert all(x.is_deleted() for x in jax.tree.leaves(begin.state))  # donated: the new state has its memory
    expected, figures = alone("language")
    assert_close(metrics, figures, rtol=1e-5, atol=1e-6)
    assert_close(stacking.unstack_layers(gradients(state)), gradients(expected), rtol=1e-4, atol=1e-6)


def test_a_state_is_made_in_parts():
    begin = begun("language", placed("fsdp+tensor"))
    layer = begin.state.params["decoder"]["mlp_0"]["gate"]
    moments = [
        s for s in jax.tree.leaves(begin.state.opt_state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
    ]
    for part in (layer, *(moment["decoder"]["mlp_0"]["gate"] for moment in (moments[0].mu, moments[0].nu))):
        assert part.shape == (32, 64)
        assert {shard.data.shape for shard in part.addressable_shards} == {(16, 32)}


def on_each_device(tree: Any) -> int:
    """Bytes of the parts of arrays that lie on a device, which are as many on each."""
    held: dict[Any, int] = collections.defaultdict(int)
    for array in jax.tree.leaves(tree):
        for shard in array.addressable_shards:
            held[shard.device] += shard.data.nbytes
    assert len(held) == 8 and len(set(held.values())) == 1
    return next(iter(held.values()))


@pytest.mark.parametrize(
    ("preset", "changes"),
    [*((preset, {}) for preset in PRESETS), ("fsdp+tensor", LORA), ("fsdp", {"scan": True, "moments": "bfloat16"})],
)
def test_the_table_of_bytes_is_of_what_lies_on_a_device(preset: str, changes: dict[str, Any]):
    """It is printed before anything is made; and what makes the moments needs no more of a device than its part."""
    place = placed(preset)
    begin = begun("value", place, **changes)
    table = footprint(Decoder(CONFIG), start(), settings_of(**changes), place, MARKS)
    assert table["parameters"] == on_each_device((begin.state.params, begin.frozen))
    assert table["gradients"] == on_each_device(begin.state.params)
    assert table["optimizer"] == on_each_device(begin.state.opt_state)
    assert table["batch"] == on_each_device(place.put(batch("value"), "batch", "positions"))
    made = programs.memory(begin.laid.init.lower(begin.laid.state.params).compile())
    assert made.results + made.temporaries < table["gradients"] + table["optimizer"] + 4096  # small ones are padded


SCATTERS = {"all-gather", "reduce-scatter", "all-reduce", "all-to-all"}  # the last are rows of the embedding


@pytest.mark.parametrize(
    ("preset", "kinds", "most"),
    [
        ("replicated", {"all-reduce"}, 0),
        ("fsdp", SCATTERS, 1.0),  # every matrix once, and what is kept of it serves the way back
        ("tensor", {"all-reduce"}, 0),
        ("fsdp+tensor", {"all-gather", "all-reduce"}, 0.6),  # every matrix once, of which a device wants half
    ],
)
def test_no_more_is_gathered_than_the_preset_calls_for(preset: str, kinds: set[str], most: float):
    place = placed(preset)
    begin = begun("language", place)
    step: Any = begin.laid.step
    lowered = step.lower(begin.state, place.put(batch("language"), "batch", "positions"), begin.frozen, np.inf)
    moved = collectives.read(lowered.compile().as_text())
    model = sum(x.nbytes for x in jax.tree.leaves(begin.state.params))
    assert set(moved.bytes) == kinds
    assert moved.bytes.get("all-gather", 0) <= most * model
    if preset == "fsdp":  # a sum of what is whole on every device: norms, and figures
        assert moved.sent["all-reduce"] < 0.1 * moved.sent["reduce-scatter"]


@pytest.mark.parametrize("torus", [(), (4, 2), (2, 4), (8,), (2, 2, 2)])
def test_weights_are_gathered_from_neighbours_first_and_gradients_scattered_by_axes_of_a_torus(torus: tuple[int, ...]):
    """The same whole, the same sums, each part where it was gathered from."""
    mesh, parts = placed("fsdp").mesh, jnp.arange(64.0).reshape(32, 2)
    factors = jax.random.normal(jax.random.key(0), (8, 32, 2))
    gathered = lambda part: execution._gathered(part, ("fsdp",), 0, torus)  # noqa: E731
    whole = jax.shard_map(gathered, mesh=mesh, in_specs=P("fsdp"), out_specs=P(), check_vma=False)
    np.testing.assert_array_equal(jax.jit(whole)(parts), parts)

    def gradient(part: jax.Array, factor: jax.Array) -> jax.Array:
        return jax.grad(lambda part: jnp.sum(gathered(part) * factor[0]))(part)

    split = jax.shard_map(gradient, mesh=mesh, in_specs=(P("fsdp"), P("fsdp")), out_specs=P("fsdp"), check_vma=False)
    np.testing.assert_allclose(jax.jit(split)(parts, factors), factors.sum(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "most"),
    [
        ("replicated", 0),
        ("tensor", 0.1),  # what is chosen from, no weights
        ("fsdp", 1.0),  # every matrix once a token, which is what another preset for sampling is for
    ],
)
def test_decoding_gathers_no_more_than_the_preset_calls_for_and_takes_what_was_counted(preset: str, most: float):
    engine = sampler(placed(preset))
    s = engine.settings
    shapes = decode.Shapes(s.slots, 1, s.sources, max(s.buckets), s.max_new_tokens, s.chunk, 0, 0, s.cache)
    taken = memory.taken(engine.model.config, s, s.slots, engine.placement)
    assert taken["slots"] == on_each_device(engine.programs_of(shapes).empty())
    weights = sampling_programs.params(engine.model, start()["decoder"], s, engine.placement)
    assert programs.bytes_of(weights) == on_each_device(engine.params)
    lowered = sampling_programs.decode_chunk(engine.model, shapes, engine.params, engine.placement)
    moved = collectives.read(lowered.compile().as_text())
    model = sum(x.nbytes for x in jax.tree.leaves(engine.params))
    assert moved.bytes.get("all-gather", 0) <= most * model  # of a step: nobody knows how many there will be
    assert preset != "replicated" or sum(moved.bytes.values()) < 64  # whether anything is still written


def sampler(place: Placement) -> Engine:
    settings = tiny.sampling(slots=16, sources=8, buckets=(12,))
    return Engine(Decoder(CONFIG), start()["decoder"], settings, tiny.EOS, tiny.PAD, placement=place)


def sampled(place: Placement) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(3)
    sources = [Source(rng.integers(3, tiny.VOCAB, size).tolist()) for size in (3, 8, 5, 12, 1, 7)]
    requests = [Request(f"{n}/{k}", s, len(s.tokens), 1.0) for n, s in enumerate(sources) for k in range(4)]
    return [completion.tokens for completion in sampler(place).generate(requests, jax.random.key(7))]


@functools.cache
def sampled_alone() -> list[tuple[int, ...]]:
    return sampled(one_device())


@pytest.mark.parametrize("preset", slow_but("fsdp+tensor")[:4])
def test_sampling_gives_the_same_tokens_under_every_preset(preset: str):
    assert len({len(tokens) for tokens in sampled_alone()}) > 3
    assert sampled(placed(preset)) == sampled_alone()
