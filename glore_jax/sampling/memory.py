"""What the slots take, and how many of them a device has room for."""

from __future__ import annotations

import os
from typing import Any

import jax

from glore_jax.errors import InputError
from glore_jax.models.decoder import DecoderConfig
from glore_jax.parallel import programs
from glore_jax.parallel.placement import Placement
from glore_jax.progress import say, size
from glore_jax.sampling import decode, kv_cache

SHARE = 0.8  # of the free memory: a chunk of decoding steps takes some for itself
_MOST = 512  # slots on a device; more decode no faster
# Of a lane, on a CPU:
_FEWEST = 8  # slots on a device
_OVER_WEIGHTS = 4  # bytes of keys and values for each byte of weights


def taken(config: DecoderConfig, settings: Any, slots: int, placement: Placement) -> dict[str, int]:
    """Bytes on each device, of the largest bucket: slots are split over rows, prefilled sources are not.

    Args:
      settings: the group `sampling`.
    """
    columns = max(settings.buckets), settings.max_new_tokens
    # Groups of one slot take the most: each has a prefix of its own.
    shapes = decode.Shapes(slots, 1, settings.sources, *columns, settings.chunk, 0, 0, settings.cache)
    held = jax.eval_shape(lambda: decode.empty(config, shapes))
    sources = jax.eval_shape(lambda: kv_cache.zeros(config, settings.sources, shapes.prefix_columns, shapes.cache))
    at = decode.shardings(held, placement), placement.at(None, "kv_heads")
    return {
        "slots": programs.bytes_of(programs.shapes(held, at[0])),
        "sources": programs.bytes_of(programs.shapes(sources, at[1])),
    }


def slots(config: DecoderConfig, settings: Any, placement: Placement) -> int:
    """`sampling.slots`, or where that is 0 the power of two, times the devices, for which there is memory left.

    The parameters lie on the devices already.

    Raises:
      InputError: they do not divide by the devices, or there is no room for one on each.
    """
    if settings.slots:
        placement.check_rows("sampling.slots", settings.slots)
        return settings.slots
    room = int(SHARE * min(map(free, placement.mesh.local_devices)))
    each = most(config, settings, room, placement)
    if not each:
        one = sum(taken(config, settings, placement.parts("batch"), placement).values())
        raise InputError(
            f"sampling.slots=0: one slot, with {settings.sources} sources, takes {size(one)}, and a device has "
            f"{size(room)} for them; lower sampling.sources, sampling.buckets or sampling.max_new_tokens"
        )
    slots = each * placement.parts("batch")
    held = taken(config, settings, slots, placement)["slots"]
    say(f"sampling: {each} slots on each device, {size(held)} of {size(room)}")
    return slots


def most(config: DecoderConfig, settings: Any, room: int, placement: Placement) -> int:
    """The slots for each of the devices that rows are split over, a power of two, for which there is room, or 0.

    Args:
      room: bytes on each device beside the parameters, without those that decoding takes for itself.
    """
    each, rows = _MOST, placement.parts("batch")
    while each and sum(taken(config, settings, each * rows, placement).values()) > room:
        each //= 2
    return each


def lane(config: DecoderConfig, params: Any, shapes: decode.Shapes, placement: Placement) -> int:
    """How many of the slots of a pass decode together, while the host sees to the others.

    On a CPU as few as are nearly as fast for each: what they read in one step is then in the cache for the next. But
    all of them read the weights together, so what each reads alone has to be most of it. Elsewhere all slots.

    Args:
      shapes: of all slots.
    """
    B, devices = shapes.slots, placement.parts("batch")
    if placement.mesh.devices.flat[0].platform != "cpu":
        return B
    cache = _bytes(jax.eval_shape(lambda: decode.empty(config, shapes).cache))
    needed = max(_FEWEST, _OVER_WEIGHTS * _bytes(params) * B / cache)
    sizes = (B // n for n in range(2, B + 1) if B % (n * devices * shapes.width) == 0)
    return min((size for size in sizes if size // devices >= needed), default=B)


def free(device: Any) -> int:
    """Bytes that are left on a device; of a CPU its share of the machine's free memory."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
