"""Products with weights: the values and gradients of plain ones, in float64 and in what layers compute in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glore_jax.models import products


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "columns"), [(6, 10), (10, 6), (8, 8)])
def test_values_and_gradients_are_those_of_a_plain_product(rows: int, columns: int, dtype: str):
    random = np.random.default_rng(0)
    x, w, pull = (random.normal(size=shape) for shape in ((2, 5, rows), (rows, columns), (2, 5, columns)))
    flat_x, flat_pull = x.reshape(-1, rows), pull.reshape(-1, columns)
    expected = x @ w, pull @ w.T, flat_x.T @ flat_pull

    def check(product: Any, transposed: bool, x: np.ndarray, pull: np.ndarray) -> None:
        weight = jnp.asarray(w.T if transposed else w, dtype)
        value, pulled = jax.jit(lambda x, w, p: (lambda v, f: (v, f(p)))(*jax.vjp(product, x, w)))(
            jnp.asarray(x, dtype), weight, jnp.asarray(pull, dtype)
        )
        found = value, pulled[0], pulled[1].T if transposed else pulled[1]
        assert {array.dtype for array in found} == {jnp.dtype(dtype)}
        tolerance = 1e-5 if dtype == "float32" else 0.05
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(got, np.float64).reshape(want.shape), want, tolerance, tolerance * 3)

    check(lambda x, w: products.product(x, w, True), False, x, pull)
    check(lambda x, w: products.product(x, w, False), False, x, pull)
    check(products.with_rows, True, flat_x, flat_pull)
