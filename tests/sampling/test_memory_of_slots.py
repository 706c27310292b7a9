"""How many slots there is room for."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from jax.sharding import AbstractMesh

from glore_jax.errors import InputError
from glore_jax.parallel import mesh as meshes
from glore_jax.parallel import placement, rules
from glore_jax.parallel.placement import Placement
from glore_jax.sampling import memory

CONFIG = tiny.decoder_config()
# Of one column: 2 layers, keys and values, 2 heads of 8 numbers of 4 bytes.
COLUMN = 2 * 2 * 2 * 8 * 4


def devices(data: int, tensor: int) -> Placement:
    """A placement on devices that are not there."""
    mesh: Any = AbstractMesh((data, 1, tensor, 1), meshes.AXES)
    return Placement(mesh, rules.PRESETS["tensor"])


def test_what_slots_take():
    few, more = (memory.taken(CONFIG, tiny.sampling(), slots, devices(1, 1)) for slots in (4, 8))
    one = (more["slots"] - few["slots"]) // 4
    assert COLUMN * (12 + 10) < one < COLUMN * (12 + 10) + 200  # and what is known of each slot
    assert few["sources"] == 2 * 12 * COLUMN
    rows, heads = (memory.taken(CONFIG, tiny.sampling(), 8, devices(*sizes)) for sizes in ((2, 1), (1, 2)))
    assert rows == {"slots": (more["slots"] - 4) // 2 + 4, "sources": few["sources"]}  # the count of steps is on both
    keys = 8 * (12 + 10) * COLUMN
    assert heads == {"slots": more["slots"] - keys // 2, "sources": few["sources"] // 2}


def test_slots_are_those_that_are_asked_for_or_that_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    place = placement.make()
    assert memory.slots(CONFIG, tiny.sampling(slots=6), place) == 6
    monkeypatch.setattr(memory, "free", lambda device: 40 * 22 * COLUMN)
    assert memory.slots(CONFIG, tiny.sampling(slots=0), place) == 2 * 16  # 32 of 0.8 x 40 leave nothing for sources
    assert "sampling: 16 slots on each device" in capsys.readouterr().out
    monkeypatch.setattr(memory, "free", lambda device: 10 * COLUMN)
    with pytest.raises(InputError, match=r"sampling\.slots=0: one slot, with 2 sources, takes .*; lower sampling"):
        memory.slots(CONFIG, tiny.sampling(slots=0), place)


def test_free_memory_is_some():
    assert all(memory.free(device) > 10**6 for device in placement.make().mesh.local_devices)


def test_an_engine_finds_its_slots():
    assert tiny.engine(slots=0).slots == 2 * 512
