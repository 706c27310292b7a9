"""The least time that a step can take on a chip: of computing, of its memory, and of its links to other chips.

Assumed is the best there can be: that all three go on side by side at their published peaks, products in bfloat16,
traffic spread evenly over a chip's links. Real steps take longer.
"""

from __future__ import annotations

import dataclasses

from glore_jax.parallel.collectives import Moved
from glore_jax.parallel.programs import Memory
from glore_jax.parallel.topologies import Chip

ASSUMPTIONS = (
    "computing, memory and links work side by side at their published peaks; a step takes as long as the slowest",
    "operations by formula (models/flops.py), products of bfloat16; what is computed again to save memory not counted",
    "memory: arguments read and results written once a pass over them, temporaries and what a gather brings written "
    "and read once",
    "links: what a ring of the devices sends (parallel/collectives.py), spread evenly over a chip's links",
)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of a step, at least. Attributes: compute, memory, links."""

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory, self.links)

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))


def of(chip: Chip, flops: float, memory: Memory, moved: Moved, passes: int = 1) -> Roofline:
    """Of a program.

    Args:
      flops: on each device.
      passes: how often the program reads its arguments: once for each of the decoding steps in it.
    """
    through = passes * memory.arguments + memory.results + 2 * (memory.temporaries + moved.bytes.get("all-gather", 0))
    links = sum(moved.sent.values())
    return Roofline(flops / chip.flops, through / chip.memory_rate, links / chip.link_rate)
