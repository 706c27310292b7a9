"""Which requests are sampled together, and with how many key-value columns.

All slots of a pass have as many columns as its longest prefix and its longest continuation take, and a decoding step
costs about as much as the columns that it reads. So requests of like length go together, as long as there are enough
of them to fill the slots; a few that are left over have fewer slots. Where several requests continue one source, its
columns are read for a group of them at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

# Of the sizes that a pass may have there are few, so that few shapes are compiled for.
_RINGS = 8  # eighths of the longest continuation
_FEW = 4  # all slots, or a quarter of them
_WIDTHS = (8, 4)  # slots of a group


@dataclasses.dataclass(frozen=True)
class Pass:
    """Attributes: prefix_columns (a bucket), ring (columns for new tokens), slots, width (slots of a group, which
    continue one source), members (indices of requests)."""

    prefix_columns: int
    ring: int
    slots: int
    width: int
    members: tuple[int, ...]

    @property
    def cost(self) -> int:
        """Columns that are read while a token is written for each; waiting for the last takes about a round more."""
        shared = self.prefix_columns // (2 if self.width > 1 else 1)  # a group's prefix is read in about half the time
        return (shared + self.ring) * (len(self.members) + self.slots)

    def halved(self, devices: int) -> Pass | None:
        """The same with half the slots; None where these cannot be split over the devices."""
        slots, rest = divmod(self.slots, 2 * devices)
        if rest or not slots:
            return None
        return dataclasses.replace(self, slots=slots * devices, width=_width(self.width, slots))


def plan(
    lengths: Sequence[int],
    limits: Sequence[int],
    buckets: Sequence[int],
    longest: int,
    slots: int,
    devices: int = 1,
    sources: Sequence[Hashable] = (),
) -> list[Pass]:
    """The cheapest passes that take each request once, shorter prefixes first.

    Args:
      lengths: tokens of each request's prefix, none above the largest bucket.
      limits: how many tokens each may write.
      buckets: prefix columns that a pass may have.
      longest: the largest limit that there can be.
      slots: requests that may decode together.
      devices: that slots are split over, evenly.
      sources: what each request continues; each something else, where it is left out.

    >>> [p.members for p in plan([3, 9, 4], [8, 8, 8], buckets=(4, 16), longest=8, slots=1)]
    [(0, 2), (1,)]
    >>> [p.members for p in plan([3, 9, 4], [8, 8, 8], buckets=(4, 16), longest=8, slots=16)]
    [(0, 1, 2)]
    """
    few = slots // _FEW
    by_bucket: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        by_bucket.setdefault(min(b for b in buckets if b >= length), []).append(i)
    used = sorted(by_bucket)

    def together(first: int, end: int) -> Pass:
        members = tuple(sorted(i for bucket in used[first:end] for i in by_bucket[bucket]))
        ring = -(-longest * max(eighths(limits[i], longest) for i in members) // _RINGS)
        enough = few if len(members) <= few and few % devices == 0 else slots
        different = len({sources[i] for i in members}) if sources else len(members)
        return Pass(used[end - 1], ring, enough, _width(len(members) // different, enough // devices), members)

    cheapest: list[list[Pass]] = [[]]  # of the first 0, 1, 2, ... buckets in use
    for end in range(1, len(used) + 1):
        options = ([*cheapest[first], together(first, end)] for first in range(end))
        cheapest.append(min(options, key=lambda passes: sum(p.cost for p in passes)))
    return cheapest[-1]


def eighths(limit: int, longest: int) -> int:
    """Of the largest limit that there can be, how many this one takes."""
    return -(-limit * _RINGS // longest)


def _width(each: int, slots: int) -> int:
    """Slots of a group, where each source has so many requests and a device so many slots."""
    return next((w for w in _WIDTHS if each >= w and slots % w == 0), 1)
