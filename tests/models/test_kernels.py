"""The kernels against the reference: values and gradients under masks that they can express, and what they refuse."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glore_jax.errors import InputError
from glore_jax.models import blocks, kernels
from glore_jax.models.execution import Execution
from glore_jax.models.visibility import Visibility

B, T, N, K, H = 2, 130, 4, 2, 8  # two blocks of splash attention, the second nearly empty
SEGMENTS = jnp.asarray([[1] * 70 + [2] * 50 + [0] * 10, [1] * 129 + [0]], jnp.int32)
SPLASH = Execution(attention="splash")


def arrays(seed: int = 0) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(seed), 4)
    return tuple(jax.random.normal(key, (B, T, heads, H)) for key, heads in zip(keys, (N, K, K, N), strict=True))


def compare(one: kernels.Attend, other: kernels.Attend) -> None:
    """Values and gradients where there is no padding."""
    *qkv, weights = arrays()
    real = (SEGMENTS > 0).astype(jnp.float32)[:, :, None, None]

    def outputs(attend: kernels.Attend) -> Any:
        def total(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
            mixed = attend(*qkv) * real
            return jnp.sum(mixed * weights), mixed

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*qkv)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), outputs(one), outputs(other))


@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (9, 2.0)])
def test_splash_attention_is_the_reference(window: int, cap: float):
    visible = Visibility(SEGMENTS)
    found, expected = (kernels.attend(name, visible, window, cap, SPLASH) for name in ("splash", "xla"))
    compare(found, expected)


@pytest.mark.parametrize(("block", "window", "cap"), [(16, 0, 0.0), (64, 9, 2.0), (200, 0, 0.0)])
def test_attention_in_blocks_is_the_reference(monkeypatch: pytest.MonkeyPatch, block: int, window: int, cap: float):
    """With many blocks and with one, with keys that are read once or several times for a block."""
    monkeypatch.setattr(blocks, "_BLOCK", block)
    prefix = jnp.stack([jnp.arange(T) % 70 < 30, jnp.zeros(T, bool)]) & (SEGMENTS > 0)  # in both segments
    for visible in (Visibility(SEGMENTS, prefix), Visibility(SEGMENTS)):
        found, expected = (kernels.attend(name, visible, window, cap, Execution()) for name in ("blocks", "xla"))
        compare(found, expected)


def test_blocks_compute_in_the_dtype_of_the_layers():
    *qkv, weights = (x.astype(jnp.bfloat16) for x in arrays())

    def total(name: str, *qkv: jax.Array) -> jax.Array:
        mixed = kernels.attend(name, Visibility(SEGMENTS), 0, 0.0, Execution())(*qkv)
        assert mixed.dtype == jnp.bfloat16
        real = (SEGMENTS > 0).astype(jnp.float32)[:, :, None, None]
        return jnp.sum((mixed * weights).astype(jnp.float32) * real)

    found, expected = (jax.grad(total, argnums=(1, 2, 3))(name, *qkv) for name in ("blocks", "xla"))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.astype(jnp.float32), other.astype(jnp.float32), rtol=0.1, atol=0.1)


def test_a_token_reaches_as_far_as_the_mask_says():
    prefix = jnp.stack([jnp.arange(T) % 70 < 30, jnp.arange(T) < 50])
    for visible, window in (
        (Visibility(SEGMENTS, prefix), 0),
        (Visibility(SEGMENTS, prefix), 9),
        (Visibility(SEGMENTS), 9),
    ):
        mask = np.asarray(visible.mask(window))
        first, last = map(np.asarray, visible.reach(window))
        real = np.asarray(SEGMENTS) > 0
        np.testing.assert_array_equal(first[real], mask.argmax(axis=2)[real])
        np.testing.assert_array_equal(last[real], T - 1 - mask[:, :, ::-1].argmax(axis=2)[real])


@pytest.mark.parametrize("tokens", [T, T - 1])
def test_what_cudnn_is_asked_for_is_the_reference(tokens: int):
    """The same call with the implementation that runs everywhere: what is asked for, not how it is computed."""
    prefix = jnp.arange(T)[None, :] < jnp.asarray([[30], [0]])
    mask = Visibility(SEGMENTS, prefix).mask(window=40)[:, :tokens, :tokens]
    *qkv, _ = (x[:, :tokens] for x in arrays())
    found = kernels.cudnn(*qkv, mask, implementation="xla")
    np.testing.assert_allclose(found, kernels.xla(*qkv, mask, 0.0), rtol=1e-4, atol=1e-5)


PLAIN = {"prefix_lm": False, "cap": 0.0, "head_dim": 128, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("platform", "model", "expected"),
    [
        ("cpu", {}, "blocks"),
        ("cpu", {"prefix_lm": True, "cap": 50.0, "dtype": "float32"}, "blocks"),
        ("", {}, "xla"),
        ("tpu", {}, "splash"),
        ("tpu", {"cap": 50.0, "dtype": "float32"}, "splash"),
        ("tpu", {"prefix_lm": True}, "xla"),
        ("gpu", {}, "cudnn"),
        ("gpu", {"prefix_lm": True}, "cudnn"),
        ("gpu", {"cap": 50.0}, "xla"),
        ("gpu", {"dtype": "float32"}, "xla"),
        ("gpu", {"head_dim": 256}, "xla"),
    ],
)
def test_each_backend_has_its_kernel_for_what_it_can(platform: str, model: dict[str, Any], expected: str):
    assert kernels.choose("", platform, **PLAIN | model) == expected
    assert kernels.choose("xla", platform, **PLAIN | model) == "xla"


@pytest.mark.parametrize(
    ("asked", "model", "message"),
    [
        ("flash", {}, r"attention='flash': no such kernel; there are xla, blocks, splash, cudnn"),
        ("splash", {"prefix_lm": True}, r"attention='splash': this kernel reads no prefix .*; take attention='xla'"),
        ("cudnn", {"cap": 1.0}, r"attention='cudnn': this kernel caps no scores"),
        ("cudnn", {"dtype": "float32"}, r"attention='cudnn': .* not in float32"),
        ("cudnn", {"head_dim": 12}, r"attention='cudnn': .* a multiple of 8"),
    ],
)
def test_a_kernel_that_is_asked_for_and_cannot_is_refused(asked: str, model: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        kernels.choose(asked, "tpu", **PLAIN | model)
