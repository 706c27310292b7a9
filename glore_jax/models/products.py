"""Activations times weights, with gradients in the order that XLA's CPU compiler multiplies fastest in.

Milliseconds there are of 1,024 tokens, weights of 768 rows and 2,048 columns, a table of 32,000 words, two cores; JAX's
own gradients first.

Shape suffixes: B rows, T tokens, P tokens of all rows, D and F sizes of layers, V vocabulary.
"""

from __future__ import annotations

import jax


def product(x_BxTxD: jax.Array, weight_DxF: jax.Array, flat: bool) -> jax.Array:
    """Activations times a weight, [B, T, F].

    Args:
      flat: as one of two matrices. For the gradient of a weight XLA's CPU compiler would else copy activations into
        another order first, which takes longer than the product.
    """
    if not flat:
        return x_BxTxD @ weight_DxF
    return _matrices(x_BxTxD.reshape(-1, x_BxTxD.shape[-1]), weight_DxF).reshape(*x_BxTxD.shape[:-1], -1)


@jax.custom_vjp
def _matrices(x_PxD: jax.Array, weight_DxF: jax.Array) -> jax.Array:
    """`x @ weight`. For the gradient of a weight with more columns than rows activations are transposed by themselves
    before they are multiplied: 60 and 42 ms."""
    return x_PxD @ weight_DxF


def _of_matrices(kept: tuple[jax.Array, jax.Array], pull_PxF: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_PxD, weight_DxF = kept
    x_DxP = x_PxD.T
    if weight_DxF.shape[0] <= weight_DxF.shape[1]:
        x_DxP = jax.lax.optimization_barrier(x_DxP)
    return pull_PxF @ weight_DxF.T, x_DxP @ pull_PxF


_matrices.defvjp(lambda x_PxD, weight_DxF: (x_PxD @ weight_DxF, (x_PxD, weight_DxF)), _of_matrices)


@jax.custom_vjp
def with_rows(x_PxD: jax.Array, table_VxD: jax.Array) -> jax.Array:
    """`x @ table.T`, [P, V]. The gradient of the table is made as [D, V] and then transposed: 638 and 375 ms."""
    return x_PxD @ table_VxD.T


def _of_rows(kept: tuple[jax.Array, jax.Array], pull_PxV: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_PxD, table_VxD = kept
    return pull_PxV @ table_VxD, (x_PxD.T @ pull_PxV).T


with_rows.defvjp(lambda x_PxD, table_VxD: (x_PxD @ table_VxD.T, (x_PxD, table_VxD)), _of_rows)
