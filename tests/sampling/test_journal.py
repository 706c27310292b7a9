"""A sampling that is cut goes on with the requests that had not finished, and ends as if it had not been cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.errors import InputError
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.journal import Journal
from glore_jax.sampling.requests import Completion, Request, Source

KEY = jax.random.key(7)
ONE = Completion((5, 3, 9), "stop", (-0.5, -1.25, -3.0))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(*tiny.random_decoder(), tiny.sampling(slots=4), tiny.EOS, 0)


def make_requests() -> list[Request]:
    draw = np.random.default_rng(0)
    sources = [Source(draw.integers(3, tiny.VOCAB, 5).tolist()) for _ in range(6)]
    return [Request(f"q{i}/{k}", s, 5, 1.0) for i, s in enumerate(sources) for k in range(2)]


class Cut(Exception):
    pass


def assert_same(found: Iterable[Completion], expected: Iterable[Completion]) -> None:
    """Equal tokens; log-probabilities to rounding, which depends on what was sampled beside them."""
    for mine, yours in zip(found, expected, strict=True):
        assert (mine.tokens, mine.reason) == (yours.tokens, yours.reason)
        np.testing.assert_allclose(mine.logprobs, yours.logprobs, rtol=1e-5, atol=1e-5)


def test_a_cut_sampling_asks_for_the_unfinished_requests_alone(engine: Engine, tmp_path: Path):
    requests = make_requests()
    uncut = engine.generate(requests, KEY)
    with pytest.raises(Cut), Journal(tmp_path) as journal:
        for number, _ in enumerate(engine.start(requests, KEY, journal=journal)):
            if number == 4:
                raise Cut
    counts: list[tuple[int, int]] = []
    with Journal(tmp_path) as journal:
        done = dict(journal.found)
        found = engine.generate(requests, KEY, lambda *n: counts.append(n), journal)
    assert len(done) == 5  # all that had been handed out
    assert_same(found, uncut)
    assert sum(requests for requests, _ in counts) == len(requests)
    written = sum(len(c.tokens) for r, c in zip(requests, uncut, strict=True) if r.id not in done)
    assert sum(tokens for _, tokens in counts) == written
    with Journal(tmp_path) as journal:
        assert journal.found == {r.id: c for r, c in zip(requests, found, strict=True)}


def test_requests_that_are_added_are_looked_up_too(engine: Engine, tmp_path: Path):
    first, *others = make_requests()
    uncut = engine.generate([first, *others], KEY)
    for sampled in (sum(len(c.tokens) for c in uncut), 0):  # the second time all are found
        counts: list[int] = []
        with Journal(tmp_path) as journal:
            work = engine.start([first], KEY, lambda _, n, counts=counts: counts.append(n), journal)
            found = {}
            for request, completion in work:
                found[request.id] = completion
                if request is first:
                    for other in others:
                        work.add(other)
        assert_same([found[r.id] for r in (first, *others)], uncut)
        assert sum(counts) == sampled


def test_one_that_is_given_up_is_not_handed_out(engine: Engine, tmp_path: Path):
    first, second, *_ = make_requests()
    with Journal(tmp_path) as journal:
        journal.write(first.id, ONE)
        journal.write(second.id, ONE)
    with Journal(tmp_path) as journal:
        work = engine.start((), KEY, journal=journal)
        work.add(first)
        work.add(second)
        work.cancel(second)
        assert list(work) == [(first, ONE)]


@given(cut=st.integers(1, 200))
def test_what_was_cut_in_the_middle_of_an_entry_is_dropped(tmp_path_factory: pytest.TempPathFactory, cut: int):
    folder = tmp_path_factory.mktemp("journal")
    with Journal(folder) as journal:
        for name in "abc":
            journal.write(name, ONE)
    path = folder / "0.msgpack"
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    left = max(0, len(whole) - cut) // (len(whole) // 3)
    with Journal(folder) as journal:
        assert list(journal.found) == list("abc")[:left]
        journal.write("d", ONE)
    with Journal(folder) as journal:
        assert journal.found == dict.fromkeys([*"abc"[:left], "d"], ONE)


def test_on_a_full_disk_the_journal_is_named_and_keeps_what_it_had(tmp_path: Path, room: Callable[[int], Any]):
    with Journal(tmp_path) as journal:
        journal.write("a", ONE)
    path = tmp_path / "0.msgpack"
    size = path.stat().st_size
    with (
        room(size + size // 2),
        pytest.raises(InputError, match=f"{path}: cannot be written"),
        Journal(tmp_path) as full,
    ):
        full.write("b", ONE)
    with Journal(tmp_path) as journal:
        assert list(journal.found) == ["a"]
        journal.write("b", ONE)
    with Journal(tmp_path) as journal:
        assert list(journal.found) == ["a", "b"]


def test_every_process_reads_what_others_wrote(tmp_path: Path):
    with Journal(tmp_path, "0") as zero, Journal(tmp_path, "1") as one:
        zero.write("a", ONE)
        one.write("b", ONE)
    with Journal(tmp_path, "2") as journal:
        assert journal.found == {"a": ONE, "b": ONE}
        journal.remove()
    assert not tmp_path.exists()
