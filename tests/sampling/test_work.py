"""Requests under way: some are added, some given up, some stopped; faults name the request."""

from __future__ import annotations

import dataclasses
import itertools
import logging

import jax
import numpy as np
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.sampling import decode, layouts
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.lanes import Lane
from glore_jax.sampling.requests import Completion, Request, Source

KEY = jax.random.key(7)


def requests_of(count: int, each: int = 1, **changes) -> list[Request]:
    draw = np.random.default_rng(3)
    sources = [Source(draw.integers(3, tiny.VOCAB, size).tolist()) for size in draw.integers(2, 12, count)]
    return [
        Request(f"r{i}/{k}", source, len(source.tokens), 1.0, **changes)
        for i, source in enumerate(sources)
        for k in range(each)
    ]


def assert_same(found: dict[str, Completion], expected: dict[str, Completion]) -> None:
    assert {name: (c.tokens, c.reason) for name, c in found.items()} == {
        name: (c.tokens, c.reason) for name, c in expected.items()
    }
    for name, completion in found.items():
        np.testing.assert_allclose(completion.logprobs, expected[name].logprobs, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def alone() -> dict[str, Completion]:
    """What each of 12 requests, four to a source, writes; by id."""
    requests = requests_of(3, each=4)
    return {r.id: c for r, c in zip(requests, tiny.engine().generate(requests, KEY), strict=True)}


def test_requests_may_be_more_than_are_read_at_a_time(alone: dict[str, Completion], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("glore_jax.sampling.work._WINDOW", 5)
    read = []

    def coming():
        for request in requests_of(3, each=4):
            read.append(request.id)
            yield request

    found, seen = {}, []
    for request, completion in tiny.engine().start(coming(), KEY):
        found[request.id] = completion
        seen.append(len(read))
    assert_same(found, alone)
    assert seen == sorted(seen)
    assert set(seen) == {5, 10, 12}


@pytest.mark.parametrize("room", [0, 10])
def test_a_completion_may_bring_new_requests(alone: dict[str, Completion], room: int):
    """Each source's next request is asked for when the one before it is done."""
    rows = requests_of(3, each=4, room=room)
    following = {a.id: b for a, b in itertools.pairwise(rows) if a.source is b.source}
    work = tiny.engine().start(rows[::4], KEY)
    found = {}
    for request, completion in work:
        found[request.id] = completion
        if request.id in following:
            work.add(following[request.id])
    assert_same(found, alone)


def test_new_requests_of_a_source_need_no_second_prefill(monkeypatch: pytest.MonkeyPatch):
    prefills = []
    whole = decode.prefill
    monkeypatch.setattr(decode, "prefill", lambda *given: prefills.append(1) or whole(*given))
    rows = requests_of(2, each=16, room=10)
    work = tiny.engine(slots=8).start([*rows[:4], *rows[16:20]], KEY)
    found = []
    for request, completion in work:
        found.append(completion)
        at = rows.index(request)
        if at % 16 < 12:
            work.add(rows[at + 4])
    assert (len(found), len(prefills)) == (32, 1)


def test_what_may_write_much_begins_first(monkeypatch: pytest.MonkeyPatch):
    """Then what continues a long source; of two limits that differ by less than an eighth neither is longer."""
    began: list[str] = []
    insert = Lane.insert

    def inserting(lane: Lane, taken: list[int]) -> None:
        began.extend(lane.owner[slot].id for slot in taken)  # pyright: ignore[reportOptionalMemberAccess]
        insert(lane, taken)

    monkeypatch.setattr(Lane, "insert", inserting)
    rows = [  # sources of so many tokens, limits, and room for what follows
        ("short, little", 3, 2, 0),
        ("long, little", 11, 2, 0),
        ("short, much", 4, 9, 0),
        ("long, much", 9, 10, 0),
        ("short, little and much after it", 2, 1, 9),
    ]
    requests = [Request(name, Source([5] * size), size, 1.0, limit, room=room) for name, size, limit, room in rows]
    tiny.engine(slots=2, buckets=(12,)).generate(requests, KEY)
    assert began == ["long, much", "short, much", "short, little and much after it", "long, little", "short, little"]


def test_sources_are_prefilled_with_as_many_columns_as_they_take(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[tuple[int, ...], list[int]]] = []
    whole = decode.prefill

    def prefilling(model, columns, kind, params, tokens, length, prompt):
        seen.append((tokens.shape, np.asarray(length).tolist()))
        return whole(model, columns, kind, params, tokens, length, prompt)

    monkeypatch.setattr(decode, "prefill", prefilling)
    draw = np.random.default_rng(5)
    sources = [Source(draw.integers(3, tiny.VOCAB, size).tolist()) for size in (4, 10, 3, 12, 9, 2)]
    requests = [Request(f"r{i}", source, len(source.tokens), 1.0) for i, source in enumerate(sources)]
    found = tiny.engine(slots=8, buckets=(4, 12)).generate(requests, KEY)
    assert seen == [((2, 12), [12, 10]), ((2, 12), [9, 4]), ((2, 4), [3, 2])]
    assert [c.tokens for c in found] == [c.tokens for c in tiny.engine(buckets=(12,)).generate(requests, KEY)]


def test_what_is_added_may_need_another_shape():
    short, long = Source([5, 6, 7]), Source([8] * 11)
    work = tiny.engine().start([Request("a", short, 3, 1.0, limit=2)], KEY)
    found = {}
    for request, completion in work:
        found[request.id] = completion
        if request.id == "a":
            work.add(Request("b", long, 11, 1.0))
    (expected,) = tiny.engine().generate([Request("b", long, 11, 1.0)], KEY)
    assert found["b"].tokens == expected.tokens


@pytest.mark.parametrize(("room", "before"), [(0, "decode"), (10, "harvest")])
def test_what_ended_is_handed_out_while_the_next_chunk_is_decoded(
    monkeypatch: pytest.MonkeyPatch, room: int, before: str
):
    """So its answer is checked then; what others may follow from comes before that chunk, which they can join."""
    events = []
    for name in ("harvest", "decode"):
        whole = getattr(Lane, name)
        recorded = lambda *given, name=name, whole=whole: events.append(name) or whole(*given)  # noqa: E731
        monkeypatch.setattr(Lane, name, recorded)
    last = [events[-1] for _ in tiny.engine(slots=4).start(requests_of(12, room=room), KEY)]
    assert len(last) == 12
    assert set(last[:-4]) == {before}  # of the last ones no chunk follows


def test_what_is_given_up_does_not_come_back(alone: dict[str, Completion]):
    rows = requests_of(3, each=4)
    work = tiny.engine(chunk=1).start(rows, KEY)
    found = {}
    for request, completion in work:
        if not found:
            gone = [r for r in rows if r is not request and r.id.endswith(("1", "3"))]
            for other in gone:
                work.cancel(other)
        found[request.id] = completion
    assert set(alone) - set(found) == {r.id for r in gone}
    assert_same(found, {name: alone[name] for name in found})


def test_stops_are_tokens_or_texts(alone: dict[str, Completion]):
    """A text may span tokens; the first stop of either kind counts."""
    model, params = tiny.random_decoder()
    engine = Engine(
        model, params, tiny.sampling(), tiny.EOS, tiny.PAD, text=lambda tokens: "".join(f"<{t}>" for t in tokens)
    )
    plain = requests_of(3, each=4)
    long = [r for r in plain if len(alone[r.id].tokens) > 5]
    third, fourth = ({r.id: alone[r.id].tokens[n] for r in long} for n in (3, 4))
    cases = [
        (lambda r: (third[r.id],), lambda r: 1 + alone[r.id].tokens.index(third[r.id])),
        (lambda r: (f"{third[r.id]}><{fourth[r.id]}>",), None),
        (lambda r: (f"<{fourth[r.id]}>", alone[r.id].tokens[0]), lambda r: 1),
        (lambda r: ("nowhere", 63_000), lambda r: len(alone[r.id].tokens)),
    ]
    for stop, expected in cases:
        found = engine.generate([dataclasses.replace(r, stop=stop(r)) for r in long], KEY)
        for request, completion in zip(long, found, strict=True):
            whole = alone[request.id]
            size = expected(request) if expected else 5
            assert len(completion.tokens) <= size if expected is None else len(completion.tokens) == size
            assert completion.tokens == whole.tokens[: len(completion.tokens)]
            assert completion.reason == ("stop" if len(completion.tokens) < len(whole.tokens) else whole.reason)
            assert len(completion.logprobs) == len(completion.tokens)


def test_a_text_cannot_stop_an_engine_that_knows_no_texts():
    with pytest.raises(InputError, match=r"request r0/0: it stops at a text"):
        tiny.engine().generate(requests_of(1, stop=("\n",)), KEY)


def test_logits_that_are_not_numbers_name_request_and_model():
    model, params = tiny.random_decoder()
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), params)
    engine = Engine(model, broken, tiny.sampling(), tiny.EOS, tiny.PAD, name="runs/mine/sft")
    with pytest.raises(
        InputError, match=r"request r\d/0: the logits of runs/mine/sft are not numbers after \d+ tokens"
    ):
        engine.generate(requests_of(2), KEY)


def test_where_memory_ends_half_the_slots_go_on(
    alone: dict[str, Completion], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    whole, used = decode.decode_chunk, []

    def small(model, shapes, *given):
        used.append(shapes.slots)
        if shapes.slots > 4 and len(used) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return whole(model, shapes, *given)

    monkeypatch.setattr(decode, "decode_chunk", small)
    engine = tiny.engine(slots=8)
    with caplog.at_level(logging.WARNING):
        found = engine.generate(requests_of(3, each=4), KEY)
    assert_same(dict(zip(alone, found, strict=True)), alone)
    assert caplog.messages == ["out of memory: sampling goes on with 4 slots"]
    assert (used[:3], set(used[3:]), engine.slots) == ([8, 8, 8], {4}, 4)


@pytest.mark.parametrize("chunk", range(1, 9))
def test_where_memory_ends_nothing_that_was_found_is_lost(
    alone: dict[str, Completion], monkeypatch: pytest.MonkeyPatch, chunk: int
):
    """Whichever chunk is refused: what had ended just before it had left its slot, and was not handed out yet."""
    whole, begun = decode.decode_chunk, []

    def small(model, shapes, *given):
        begun.append(1)
        if len(begun) == chunk:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return whole(model, shapes, *given)

    monkeypatch.setattr(decode, "decode_chunk", small)
    found = tiny.engine(slots=8).generate(requests_of(3, each=4), KEY)
    assert_same(dict(zip(alone, found, strict=True)), alone)


def test_where_memory_ends_before_the_slots_are_there_half_are_made(
    alone: dict[str, Completion], monkeypatch: pytest.MonkeyPatch
):
    whole = layouts.Programs

    def small(model, shapes, *given):
        if shapes.slots > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return whole(model, shapes, *given)

    monkeypatch.setattr(layouts, "Programs", small)
    engine = tiny.engine(slots=8)
    assert_same(dict(zip(alone, engine.generate(requests_of(3, each=4), KEY), strict=True)), alone)
    assert engine.slots == 4


def test_other_faults_of_the_device_are_not_hidden(monkeypatch: pytest.MonkeyPatch):
    def broken(*given):
        raise jax.errors.JaxRuntimeError("INTERNAL: no such thing")

    monkeypatch.setattr(decode, "decode_chunk", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such thing"):
        tiny.engine(slots=8).generate(requests_of(3), KEY)
