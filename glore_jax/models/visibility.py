"""Which tokens of whole rows see which, as what it is made of: kernels want that, the reference a mask of all pairs."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


class Visibility(flax.struct.PyTreeNode):
    """Packed rows, read causally within a segment and not at all across; a prefix may be read in both directions.

    The tokens of a segment lie side by side, so columns are as far apart as positions.

    Attributes:
      segments_BxT: to which segment each token belongs; 0 is padding.
      prefix_BxT: bool, tokens that are also seen by every earlier such token of their segment: the bidirectional source
        of a prefix language model. None: there are none.
    """

    segments_BxT: jax.Array
    prefix_BxT: jax.Array | None = None

    def mask(self, window: int = 0) -> jax.Array:
        """Which key each query sees, [B, T, T].

        Args:
          window: how many positions back a token sees, itself included, and no further ahead; 0: all.

        >>> Visibility(jnp.array([[1, 1, 2, 0]])).mask()[0].astype(int)
        Array([[1, 0, 0, 0],
               [1, 1, 0, 0],
               [0, 0, 1, 0],
               [0, 0, 0, 1]], dtype=int32)
        """
        T = self.segments_BxT.shape[1]
        same = self.segments_BxT[:, :, None] == self.segments_BxT[:, None, :]
        seen = jnp.tril(jnp.ones((T, T), bool))[None]
        if self.prefix_BxT is not None:
            seen = seen | (self.prefix_BxT[:, :, None] & self.prefix_BxT[:, None, :])
        if window:
            columns = jnp.arange(T)
            seen = seen & (jnp.abs(columns[:, None] - columns[None, :]) < window)[None]
        return same & seen
