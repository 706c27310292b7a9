"""What a program moves, of one written by hand, and of one that XLA compiles for the CPU devices here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.parallel import collectives

# Four devices. A loop of 5 - 1 turns gathers 4 x 8 x 2 bytes and sends on 8 x 4 bytes; a reduction of 16 x 4 bytes is
# fused with the choice of a quarter; a sum of 8 x 4 bytes goes over pairs; a loop without an end exchanges 8 x 4 bytes.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, num_partitions=4

%body (p: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %p = (s32[]{:T(128)}, bf16[8]{0:T(8,128)(2,1)S(1)}) parameter(0)
  %shard = bf16[8]{0:T(8,128)(2,1)S(1)} get-tuple-element(%p), index=1
  %all-gather.3 = bf16[4,8]{1,0:T(8,128)(2,1)} all-gather(%shard), replica_groups=[1,4]<=[4], dimensions={0}
  %sent = (f32[8]{0}, f32[8]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%w), source_target_pairs={{0,1}}
  %arrived = f32[8]{0} collective-permute-done(%sent)
  ROOT %out = (s32[]{:T(128)}, bf16[8]{0}) tuple(%next, %shard)
}

%condition (p: (s32[], bf16[8])) -> pred[] {
  %end = s32[]{:T(128)} constant(5)
  %p = (s32[]{:T(128)}, bf16[8]{0}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[]{:T(512)} compare(%count, %end), direction=LT, metadata={op_name="while/cond"}
}

%any (p: (f32[8])) -> pred[] {
  %p = (f32[8]{0}) parameter(0)
  ROOT %on = pred[] custom-call(%p), custom_call_target="Any"
}

%exchange (p: (f32[8])) -> (f32[8]) {
  %p = (f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=0
  %all-to-all = f32[8]{0} all-to-all(%x), replica_groups={}, dimensions={0}
  ROOT %out = (f32[8]{0}) tuple(%all-to-all)
}

%all-reduce-scatter.1 (p: f32[16]) -> f32[4] {
  %p = f32[16]{0} parameter(0)
  %all-reduce.2 = f32[16]{0} all-reduce(%p), replica_groups={{0,1,2,3}}, to_apply=%sum
  ROOT %part = f32[4]{0} dynamic-slice(%all-reduce.2, %zero), dynamic_slice_sizes={4}
}

ENTRY %main (a: bf16[8], b: f32[16]) -> f32[4] {
  %a = bf16[8]{0} parameter(0)
  %one = s32[]{:T(128)} constant(1)
  %first = s32[]{:T(128)} copy(%one)
  %start = (s32[]{:T(128)}, bf16[8]{0}) tuple(%first, %a)
  %loop = (s32[]{:T(128)}, bf16[8]{0}) while(%start), condition=%condition, body=%body
  %begin = (f32[8]{0}) tuple(%w)
  %forever = (f32[8]{0}) while(%begin), condition=%any, body=%exchange
  %b = f32[16]{0} parameter(1)
  %pairs = (f32[4]{0}, f32[4]{0}) all-reduce-start(%c, %d), replica_groups=mesh['x'=2,'y'=2] {'y'}, to_apply=%sum
  %both = (f32[4]{0}, f32[4]{0}) all-reduce-done(%pairs)
  ROOT %scattered = f32[4]{0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_a_program_by_hand():
    found = collectives.read(PROGRAM)
    assert found.bytes == {
        "all-gather": 4 * 4 * 8 * 2,
        "all-reduce": 2 * 4 * 4,
        "reduce-scatter": 16 * 4,
        "all-to-all": 8 * 4,
        "collective-permute": 4 * 8 * 4,
    }
    assert found.sent == {
        "all-gather": 4 * 4 * 8 * 2 * 3 // 4,
        "all-reduce": 2 * 4 * 4,  # twice a half
        "reduce-scatter": 16 * 4 * 3 // 4,
        "all-to-all": 8 * 4 * 3 // 4,
        "collective-permute": 4 * 8 * 4,
    }
    counts = {"all-gather": 4, "all-reduce": 1, "reduce-scatter": 1, "all-to-all": 1, "collective-permute": 4}
    assert (found.times, found.endless) == (counts, 1)


def test_a_compiled_scan_counts_every_turn():
    """Two devices: each turn sums 16 x 4 bytes over both."""
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))

    def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(x @ w), None

    at = {"x": NamedSharding(mesh, P(None, None)), "w": NamedSharding(mesh, P(None, "x", None))}
    x = jax.ShapeDtypeStruct((2, 8), jnp.float32, sharding=at["x"])
    w = jax.ShapeDtypeStruct((6, 8, 8), jnp.float32, sharding=at["w"])
    compiled = jax.jit(lambda x, w: jax.lax.scan(layer, x, w)[0]).lower(x, w).compile()
    found = collectives.read(compiled.as_text())
    assert (found.bytes, found.times, found.endless) == ({"all-reduce": 6 * 16 * 4}, {"all-reduce": 6}, 0)


def test_a_program_of_one_device_moves_nothing():
    text = jax.jit(jnp.sum).lower(jnp.ones(8)).compile().as_text()
    assert collectives.read(text) == collectives.Moved({}, {}, {}, 0)


def test_a_gather_that_hides_behind_products_counts_once():
    """One fusion starts it, one goes on with it while it multiplies, in one it is done; each names it."""
    gather = "%g = f32[8]{0} all-gather(%p), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}"
    text = f"""HloModule step, num_partitions=4

%begins (p: f32[2]) -> f32[8] {{
  {gather}
  ROOT %c = f32[8]{{0}} custom-call(%g), custom_call_target="AsyncCollectiveStart"
}}

%async_collective_fusion.7 (p: f32[2]) -> f32[8] {{
  ROOT {gather}
}}

%ends (p: f32[2]) -> f32[8] {{
  {gather}
  ROOT %c = f32[8]{{0}} custom-call(%g), custom_call_target="AsyncCollectiveDone"
}}

ENTRY %main (p: f32[2]) -> f32[8] {{
  %p = f32[2]{{0}} parameter(0)
  %a = f32[8]{{0}} fusion(%p), kind=kCustom, calls=%begins
  %b = f32[8]{{0}} fusion(%p), kind=kOutput, calls=%async_collective_fusion.7
  ROOT %c = f32[8]{{0}} fusion(%p), kind=kCustom, calls=%ends
}}
"""
    assert collectives.read(text) == collectives.Moved({"all-gather": 32}, {"all-gather": 24}, {"all-gather": 1}, 0)
