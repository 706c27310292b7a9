"""Lanes: the same samples, one decoding while the host sees to another, and small only where that pays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from glore_jax.parallel import placement as placements
from glore_jax.parallel.placement import Placement
from glore_jax.sampling import decode, memory
from glore_jax.sampling.lanes import Lane
from glore_jax.sampling.requests import Completion, Request, Source

KEY = jax.random.key(7)


def requests_of(count: int, each: int, **changes: Any) -> list[Request]:
    draw = np.random.default_rng(4)
    sources = [Source(draw.integers(3, tiny.VOCAB, size).tolist()) for size in draw.integers(2, 12, count)]
    return [
        Request(f"r{i}/{k}", source, len(source.tokens), 1.0, **changes)
        for i, source in enumerate(sources)
        for k in range(each)
    ]


@pytest.fixture
def lanes_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "lane", lambda *given: 4)


def shown(found: dict[str, Completion]) -> dict[str, tuple]:
    return {name: (c.tokens, c.reason) for name, c in found.items()}


@pytest.fixture(scope="module")
def alone() -> dict[str, Completion]:
    rows = requests_of(9, 3)
    return {r.id: c for r, c in zip(rows, tiny.engine().generate(rows, KEY), strict=True)}


@pytest.mark.parametrize("slots", [8, 24])
def test_samples_do_not_depend_on_lanes(alone: dict[str, Completion], lanes_of_four: None, slots: int):
    rows = requests_of(9, 3)
    found = tiny.engine(slots=slots).generate(rows, KEY)
    assert shown(dict(zip([r.id for r in rows], found, strict=True))) == shown(alone)


def test_requests_are_added_and_given_up_in_any_lane(alone: dict[str, Completion], lanes_of_four: None):
    """Each third sample is asked for when the first of its source is done, and the second given up then."""
    rows = requests_of(9, 3, room=10)
    work = tiny.engine(slots=12, chunk=1).start([r for r in rows if not r.id.endswith("/2")], KEY)
    found = {}
    for request, completion in work:
        found[request.id] = completion
        if request.id.endswith("/0"):
            second, third = rows[rows.index(request) + 1 :][:2]
            if second.id not in found:
                work.cancel(second)
            work.add(third)
    assert {name for name in alone if not name.endswith("/1")} <= set(found)
    assert len(found) < len(alone)
    assert shown(found) == shown({name: alone[name] for name in found})


def test_a_lane_decodes_while_the_host_sees_to_another(lanes_of_four: None, monkeypatch: pytest.MonkeyPatch):
    busy: set[Lane] = set()
    beside = []
    harvest, chunk = Lane.harvest, Lane.decode

    def decoding(lane: Lane, key: jax.Array) -> None:
        busy.add(lane)
        chunk(lane, key)

    def harvesting(lane: Lane, cancelled: Any) -> Any:
        if lane in busy:
            beside.append(len(busy) - 1)
            busy.remove(lane)
        return harvest(lane, cancelled)

    monkeypatch.setattr(Lane, "decode", decoding)
    monkeypatch.setattr(Lane, "harvest", harvesting)
    tiny.engine(slots=12).generate(requests_of(20, 3), KEY)
    assert len(beside) > 20
    assert set(beside[: len(beside) // 2]) == {2}  # both others, as long as there is enough to do


def test_lanes_are_as_small_as_their_own_keys_and_values_are_most_of_what_is_read():
    config = tiny.decoder_config()  # a column of a slot: 2 layers * 2 * 2 heads * 8 * 4 bytes = 256
    params = {"weights": np.zeros(64 * 1024, np.uint8)}  # four times as many bytes are 1024 columns
    place = placements.make()
    assert place.parts("batch") == 2

    def lane(slots: int, columns: int, width: int = 1) -> int:
        return memory.lane(config, params, decode.Shapes(slots, width, 2, columns // 2, columns // 2, 3, 2, 0), place)

    assert lane(256, 32) == 64  # 32 slots on each device have 1024 columns
    assert lane(256, 64) == 32
    assert lane(256, 1024) == 16  # eight on each device are the fewest
    assert lane(48, 1024) == 16
    assert lane(40, 1024) == 20  # 16 do not divide them
    assert lane(16, 1024) == lane(16, 32) == 16
    assert lane(24, 1024, width=8) == 24  # of three groups a device cannot have one and a half
    assert lane(32, 1024, width=8) == 16


def test_a_device_that_is_no_cpu_has_one_lane():
    mesh: Any = SimpleNamespace(devices=np.array([SimpleNamespace(platform="gpu")]), shape={})
    shapes = decode.Shapes(64, 1, 2, 512, 512, 3, 2, 0)
    assert memory.lane(tiny.decoder_config(), {}, shapes, Placement(mesh)) == 64
