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
        columns = jnp.arange(self.segments_BxT.shape[1])
        return self.between((self, columns), (self, columns), window)

    @staticmethod
    def between(queries: tuple[Visibility, jax.Array], keys: tuple[Visibility, jax.Array], window: int) -> jax.Array:
        """Which of some keys each of some queries sees, [B, Q, S].

        Args:
          queries, keys: what is known of these columns [B, Q] or [B, S] of the same rows, and which columns they are.
        """
        (q, at_Q), (k, at_S) = queries, keys
        seen = (at_Q[:, None] >= at_S[None, :])[None]
        if q.prefix_BxT is not None and k.prefix_BxT is not None:
            seen = seen | (q.prefix_BxT[:, :, None] & k.prefix_BxT[:, None, :])
        if window:
            seen = seen & (jnp.abs(at_Q[:, None] - at_S[None, :]) < window)[None]
        return seen & (q.segments_BxT[:, :, None] == k.segments_BxT[:, None, :])

    def reach(self, window: int = 0) -> tuple[jax.Array, jax.Array]:
        """The first and the last column that each token sees, [B, T] each; of padding, itself.

        >>> prefix = jnp.array([[True, True, False, False, False]])
        >>> first, last = Visibility(jnp.array([[1, 1, 1, 2, 0]]), prefix).reach()
        >>> first.tolist(), last.tolist()
        ([[0, 0, 0, 3, 4]], [[1, 1, 2, 3, 4]])
        """
        columns = jnp.arange(self.segments_BxT.shape[1])[None, :]
        ends = self.segments_BxT[:, 1:] != self.segments_BxT[:, :-1]
        begins = jnp.pad(ends, ((0, 0), (1, 0)), constant_values=True)
        first = last = jax.lax.cummax(jnp.where(begins, columns, 0), axis=1)
        last = jnp.broadcast_to(columns, first.shape)
        if self.prefix_BxT is not None:
            inside = self.prefix_BxT[:, :-1] & self.prefix_BxT[:, 1:] & ~ends
            inside = jnp.pad(inside, ((0, 0), (0, 1)))  # whether the prefix goes on with the next token
            last = jax.lax.cummin(jnp.where(inside, columns.shape[1], columns), axis=1, reverse=True)
        if window:
            first, last = jnp.maximum(first, columns - window + 1), jnp.minimum(last, columns + window - 1)
        real = self.segments_BxT > 0
        return jnp.where(real, first, columns), jnp.where(real, last, columns)
