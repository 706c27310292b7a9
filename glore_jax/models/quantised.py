"""Eight bits a number: weights with a scale for each output, keys and values with one for each column of each head.

Scales are symmetric: a number is an integer from -127 to 127 times its scale, and the largest of those that share a
scale is 127 of them. So no number is off by more than half a scale, and zero stays zero.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

_MOST = 127


def quantise(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Integers (int8, of the shape of `x`) and scales (float32, of size 1 along `axis`), whose product is near `x`.

    Args:
      axis: along which numbers share a scale.

    >>> values, scale = quantise(jnp.array([[1.0, -0.5], [0.0, 0.0]]), axis=1)
    >>> values.tolist(), [round(s, 4) for [s] in scale.tolist()]
    ([[127, -64], [0, 0]], [0.0079, 1.0])
    """
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=axis, keepdims=True) / _MOST
    scale = jnp.where(scale > 0, scale, 1.0)
    return jnp.clip(jnp.round(x / scale), -_MOST, _MOST).astype(jnp.int8), scale


class Int8(flax.struct.PyTreeNode):
    """A matrix of weights, which the decoder reads as it reads one of floats: `x @ w.astype(dtype)` and `w.T`.

    All numbers that go into one output share a scale, so it is taken out of the sum: the product is one with integers,
    which are read from memory as such, and then a multiplication for each output.

    Attributes:
      values: int8 [..., in, out], or [..., rows, D] of an embedding.
      scale: float32, of size 1 along the axis that a product sums over.
    """

    values: Any
    scale: Any

    @classmethod
    def of(cls, weights: jax.Array, axis: int) -> Int8:
        """Args: axis: that a product sums over."""
        return cls(*quantise(weights, axis))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def T(self) -> Int8:
        return Int8(self.values.T, self.scale.T)

    def astype(self, dtype: Any) -> Int8:
        """Itself: what is made of it has the dtype of the other factor."""
        return self

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        # The compiler may not tell that a loop has the same matrix at each turn, nor convert it before `x` is there: it
        # would keep floats of all matrices at once.
        x, values = jax.lax.optimization_barrier((x, self.values))
        summed = jnp.matmul(x, values.astype(x.dtype), preferred_element_type=jnp.float32)
        return (summed * self.scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def placed(weights: Any, at: Any) -> Any:
    """Shardings of a tree of weights, some of which are `Int8`, from those of the matrices: scales go with outputs."""

    def one(w: Any, at: NamedSharding) -> Any:
        if not isinstance(w, Int8):
            return at
        axes = [*at.spec, *[None] * (w.values.ndim - len(at.spec))]
        kept = (None if size == 1 else axis for size, axis in zip(w.scale.shape, axes, strict=True))
        return Int8(values=at, scale=NamedSharding(at.mesh, PartitionSpec(*kept)))

    return jax.tree.map(one, weights, at, is_leaf=lambda w: isinstance(w, Int8))


def rows(table_VxD: jax.Array | Int8, tokens: jax.Array) -> jax.Array:
    """Embeddings [..., D] of tokens, float32."""
    if isinstance(table_VxD, Int8):
        values, scale = (jnp.take(x, tokens, axis=0) for x in (table_VxD.values, table_VxD.scale))
        return values.astype(jnp.float32) * scale
    return jnp.take(table_VxD, tokens, axis=0).astype(jnp.float32)
