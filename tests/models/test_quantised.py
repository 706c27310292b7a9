"""Eight bits a number: how far they are off, and products with them, against float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glore_jax.models import attention, quantised
from glore_jax.models.quantised import Int8, quantise

SIZES = st.floats(2**-20, 2**13, width=32)  # far from where a scale would be too small to be a number
NUMBERS = st.one_of(st.just(0.0), SIZES, SIZES.map(lambda x: -x))


def by_hand(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(x.astype(np.float64)).max(axis=axis, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.rint(x / scale), scale


@settings(max_examples=40)
@given(arrays.arrays(np.float32, (3, 4), elements=NUMBERS), st.sampled_from([0, 1]))
def test_no_number_is_off_by_more_than_half_a_scale(x: np.ndarray, axis: int):
    values, scale = map(np.asarray, quantise(jnp.asarray(x), axis))
    assert (values.dtype, scale.dtype, scale.shape[axis]) == (np.int8, np.float32, 1)
    np.testing.assert_allclose(scale, by_hand(x, axis)[1], rtol=1e-6)
    assert (np.abs(values * scale.astype(np.float64) - x) <= 0.5001 * scale).all()
    assert (values[x == 0] == 0).all()
    largest = np.abs(values.astype(int)).max(axis=axis)
    np.testing.assert_array_equal(largest, np.where(np.abs(x).max(axis=axis) > 0, 127, 0))


@settings(max_examples=40)
@given(arrays.arrays(np.float32, (3, 4), elements=NUMBERS))
def test_what_is_quantised_is_quantised_to_itself(x: np.ndarray):
    values, scale = quantise(jnp.asarray(x), 1)
    np.testing.assert_array_equal(quantise(values.astype(jnp.float32) * scale, 1)[0], values)


def random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_a_product_is_that_with_the_numbers_it_stands_for(shape: tuple[int, ...]):
    x, weights = random(*shape), random(8, 6, seed=1)
    matrix = Int8.of(weights, axis=-2)
    values, scale = by_hand(np.asarray(weights), 0)
    np.testing.assert_array_equal(matrix.values, values)
    expected = np.asarray(x, np.float64) @ (values * scale)
    found = x @ matrix.astype(jnp.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    words = Int8.of(weights.T, axis=-1)
    np.testing.assert_allclose(x @ words.T, expected, rtol=1e-5, atol=1e-5)
    half = x.astype(jnp.bfloat16) @ matrix.astype(jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, rtol=0.02, atol=0.05)


def test_rows_of_an_embedding():
    table, tokens = random(6, 4), jnp.array([[5, 0, 5]])
    values, scale = by_hand(np.asarray(table), 1)
    found = quantised.rows(Int8.of(table, axis=-1), tokens)
    np.testing.assert_allclose(found, (values * scale)[np.asarray(tokens)], rtol=1e-6)
    np.testing.assert_array_equal(quantised.rows(table, tokens), table[tokens])


def cache(rows: int, columns: int, name: str, seed: int) -> tuple[dict[str, jax.Array], dict[str, np.ndarray]]:
    """Keys and values of two heads of size 4, quantised as they are written; and what they stand for."""
    k, v = random(rows, 2, 4, columns, seed=seed), random(rows, 2, columns, 4, seed=seed + 1)
    empty = {"k": jnp.zeros(k.shape, jnp.int8), "v": jnp.zeros(v.shape, jnp.int8)}
    empty |= {f"{kind}_scale": jnp.zeros((rows, 2, columns)) for kind in "kv"}
    for column in range(0, columns, 2):  # two columns at a time
        part = slice(column, column + 2)
        empty = attention.write(empty, {"k": k[..., part], "v": v[:, :, part]}, jnp.int32(column))
    (whole_k, scale_k), (whole_v, scale_v) = by_hand(np.asarray(k), 2), by_hand(np.asarray(v), 3)
    np.testing.assert_array_equal(empty["k"], whole_k)
    return {f"{name}{key}": x for key, x in empty.items()}, {"k": whole_k * scale_k, "v": whole_v * scale_v}


@pytest.mark.parametrize("width", [0, 2])  # rows of a group that shares columns; 0: nothing is shared
def test_attention_reads_the_numbers_that_a_quantised_cache_stands_for(width: int):
    B, T = 4, 3
    queries = random(B, 2, T, 4, seed=7)
    keys, real = cache(B, 6, "", seed=1)
    k, v = real["k"], real["v"]
    if width:
        shared, theirs = cache(B // width, 4, "shared_", seed=3)
        keys |= shared
        k = np.concatenate([theirs["k"].repeat(width, 0), k], axis=3)
        v = np.concatenate([theirs["v"].repeat(width, 0), v], axis=2)
    mask = np.random.default_rng(5).random((B, T, k.shape[3])) < 0.7
    scores = np.einsum("bkth,bkhs->bkts", np.asarray(queries, np.float64), k)
    weights = np.exp(scores) * mask[:, None]
    expected = np.einsum("bkts,bksh->bkth", weights / weights.sum(-1, keepdims=True), v)
    found = attention.mix(queries, keys, jnp.asarray(mask))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
