"""How many slots there is room for."""

from __future__ import annotations

import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.parallel import placement
from glore_jax.sampling import memory

CONFIG = tiny.decoder_config()
# Of one column: 2 layers, keys and values, 2 heads of 8 numbers of 4 bytes.
COLUMN = 2 * 2 * 2 * 8 * 4


def test_what_slots_take():
    few, more = (memory.taken(CONFIG, tiny.sampling(), slots, 1) for slots in (4, 8))
    one = (more["slots"] - few["slots"]) // 4
    assert COLUMN * (12 + 10) < one < COLUMN * (12 + 10) + 200  # and what is known of each slot
    assert few["sources"] == 2 * 12 * COLUMN
    assert memory.taken(CONFIG, tiny.sampling(), 8, 2)["slots"] == more["slots"] // 2


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
