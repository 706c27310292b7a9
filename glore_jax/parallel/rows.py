"""Which rows of unlike length are computed together, and the few shapes that they are padded to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

ROWS = 16  # of which two cores read 30 % more a second than of 64: what a layer makes of them stays in the cache
_STEP = 64  # rows are padded to a multiple of this many tokens or more, so few shapes are compiled
_CELLS = 64 * 512**2  # query and key pairs of a batch: of longer rows there are fewer, or memory ends


def width(length: int) -> int:
    """The columns that a row of so many tokens is padded to: a multiple of 64, of long rows of an eighth to a quarter.

    >>> [width(n) for n in (1, 64, 65, 700, 5000)]
    [64, 64, 128, 768, 5120]
    """
    step = max(_STEP, 2 ** (length.bit_length() - 3))
    return -(-length // step) * step


def batches(lengths: Sequence[int], devices: int, most: int = ROWS) -> Iterator[tuple[list[int], int, int]]:
    """Which rows go together, the shortest first, and the shape [rows, width] that they are padded to.

    Args:
      lengths: tokens of each row.
      devices: that rows are split over, evenly.
      most: rows of a batch; a power of two times the devices.

    >>> [(len(batch), rows, width) for batch, rows, width in batches([100] * 70 + [700] * 40, 1, most=64)]
    [(64, 64, 128), (16, 16, 768), (16, 16, 768), (14, 16, 768)]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    while order:
        rows = most
        while True:
            columns = width(lengths[order[:rows][-1]])
            if rows <= devices or rows * columns**2 <= _CELLS:
                break
            rows //= 2
        yield order[:rows], rows, columns
        order = order[rows:]
