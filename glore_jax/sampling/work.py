"""Requests under way: slots are refilled as they come free, and completions handed out as they finish.

The host looks at the slots of a lane once a chunk of decoding steps. What it then hands out is read (answers checked,
say) while the devices decode the next chunk; only completions that further requests may follow from (`Request.room`)
come first.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from glore_jax.sampling import decode, memory, passes
from glore_jax.sampling.lanes import Finished, Lane
from glore_jax.sampling.requests import Request, Source

if TYPE_CHECKING:
    from glore_jax.sampling.engine import Engine

_WINDOW = 8192  # requests that are planned together


class Work:
    """An iterator over requests and their completions; see `Engine.start`."""

    def __init__(
        self, engine: Engine, requests: Iterable[Request], key: jax.Array, advance: Callable[[int, int], None]
    ):
        self.engine, self.key, self.advance = engine, key, advance
        self._coming, self._added = iter(requests), deque[Request]()
        self._pass: _Pass | None = None
        self.cancelled: set[Request] = set()

    def add(self, request: Request) -> None:
        """Asks for one more, which joins the requests under way where these have room for it."""
        self.engine.check([request])
        if self._pass is None or not self._pass.take(request):
            self._added.append(request)

    def cancel(self, request: Request) -> None:
        """Gives a request up that has not completed."""
        self.cancelled.add(request)

    def __iter__(self) -> Iterator[Finished]:
        e = self.engine
        while window := self._window():
            e.check(window)
            rings = [self.room(r) for r in window]
            sizes = e.settings.buckets, e.settings.max_new_tokens, e.slots, e.placement.parts("batch")
            for shape in passes.plan([r.length for r in window], rings, *sizes, [r.source for r in window]):
                yield from self._sampled(shape, [window[i] for i in shape.members])

    def room(self, request: Request) -> int:
        """How many tokens it, or what follows from it, may write."""
        return max(self.engine.limit(request), min(request.room, self.engine.settings.max_new_tokens))

    def _window(self) -> list[Request]:
        """The next requests to plan: those that were added, then new ones."""
        added = [self._added.popleft() for _ in range(min(len(self._added), _WINDOW))]
        window = [*added, *itertools.islice(self._coming, _WINDOW - len(added))]
        gone = self.cancelled.intersection(window)
        self.cancelled.clear()  # of what came before nothing is under way any more
        return [request for request in window if request not in gone] or (self._window() if window else [])

    def _sampled(self, shape: passes.Pass, requests: Sequence[Request]) -> Iterator[Finished]:
        """The completions of one pass; with half the slots, and half of these, where memory ends."""
        while True:
            self._pass = _Pass(self, shape, requests)
            try:
                yield from self._pass.run()
                break
            except jax.errors.JaxRuntimeError as error:
                half = shape.halved(self.engine.placement.parts("batch"))
                if "RESOURCE_EXHAUSTED" not in str(error) or half is None:
                    raise
                logging.getLogger(__name__).warning("out of memory: sampling goes on with %d slots", half.slots)
                yield from self._pass.behind
                requests, shape = self._pass.unfinished(), half
                self.engine.slots = min(self.engine.slots, half.slots)
        self._pass = None


class _Pass:
    """The requests that share their shapes. Its lanes take turns until none is left: harvest, refill, decode a chunk.

    While the host sees to one lane, the others decode: what ended is found at the end of its lane's own chunk, and no
    lane waits for another.
    """

    def __init__(self, work: Work, shape: passes.Pass, requests: Sequence[Request]):
        self.work, self.engine = work, work.engine
        e, columns = self.engine, (shape.prefix_columns, shape.ring)
        whole = decode.Shapes(
            shape.slots, shape.width, e.settings.sources, *columns, e.settings.chunk, e.eos, e.pad, e.settings.cache
        )
        self.shapes = dataclasses.replace(whole, slots=memory.lane(e.model.config, e.params, whole, e.placement))
        self.count, self.lanes = shape.slots // self.shapes.slots, list[Lane]()
        self.waiting: dict[Source, deque[Request]] = {}
        self.pool: dict[Source, int] = {}  # source -> its row in `prefilled`
        self.prefilled: Any = None
        self.behind: list[Finished] = []  # found, and not handed out yet
        # What may write much, or continues a long source, is likely to take long, and should not be left to the end.
        for request in sorted(requests, key=self._order):
            self.waiting.setdefault(request.source, deque()).append(request)

    def _order(self, request: Request) -> tuple[int, int]:
        longest = self.engine.settings.max_new_tokens
        return -passes.eighths(self.work.room(request), longest), -len(request.source.tokens)

    def take(self, request: Request) -> bool:
        """Lets a request join, if it fits."""
        fits = request.length <= self.shapes.prefix_columns and self.engine.limit(request) <= self.shapes.ring
        if fits:
            self.waiting.setdefault(request.source, deque()).append(request)
        return fits

    def unfinished(self) -> list[Request]:
        sitting = (r for lane in self.lanes for r in lane.owner if r is not None)
        return [*sitting, *itertools.chain.from_iterable(self.waiting.values())]

    def run(self) -> Iterator[Finished]:
        for _ in range(self.count):  # here, as memory may end
            self.lanes.append(Lane(self.engine, self.shapes))
        for lane in itertools.cycle(self.lanes):
            found = lane.harvest(self.work.cancelled)
            if found:
                self.work.advance(len(found), sum(len(completion.tokens) for _, completion in found))
            self.behind = [one for one in found if not one[0].room]  # here, as memory may end before they are out
            yield from self._wanted(one for one in found if one[0].room)
            self._refill(lane)
            if any(lane.owner):
                lane.decode(self.work.key)
            found, self.behind = self.behind, []
            yield from self._wanted(found)  # while the device decodes
            if not self.unfinished():
                return

    def _wanted(self, found: Iterable[Finished]) -> Iterator[Finished]:
        """Without those that were given up while others were handed out."""
        return (one for one in found if one[0] not in self.work.cancelled)

    def _refill(self, lane: Lane) -> None:
        """Gives waiting requests to free slots of groups that continue their source, and sources to free groups."""
        self._forget_cancelled()
        # Those that are prefilled already come first; others of like length are prefilled together.
        binds = sorted(self._binds(lane), key=lambda bind: (bind[1] not in self.pool, -self._kept(bind[1])))
        ready: list[tuple[int, int]] = []
        for at, (group, source) in enumerate(binds):
            if source not in self.pool:
                lane.bind(self.prefilled, ready)
                ready = []
                self._prefill([later for _, later in binds[at:]])
            ready.append((group, self.pool[source]))
        lane.bind(self.prefilled, ready)
        taken = []
        for slot, owner in enumerate(lane.owner):
            source = lane.bound[slot // self.shapes.width]
            queue = None if source is None else self.waiting.get(source)
            if owner is None and source is not None and queue:
                lane.owner[slot] = queue.popleft()
                taken.append(slot)
                if not queue:
                    del self.waiting[source]
        lane.insert(taken)

    def _forget_cancelled(self) -> None:
        gone = self.work.cancelled
        if gone:
            for lane in self.lanes:
                lane.owner = [None if owner in gone else owner for owner in lane.owner]
            kept = {source: deque(r for r in queue if r not in gone) for source, queue in self.waiting.items()}
            self.waiting = {source: queue for source, queue in kept.items() if queue}

    def _binds(self, lane: Lane) -> list[tuple[int, Source]]:
        """Which groups of a lane take which source now.

        A group takes one when its slots are free and nothing waits for what it had; if there is any, one that no group
        has, so that a source is kept once; else one for which there is a whole group to do.
        """
        width = self.shapes.width
        left = Counter({source: len(queue) for source, queue in self.waiting.items()})
        held: set[Source] = set()
        for other in self.lanes:
            for group, source in enumerate(other.bound):
                if source is not None and (other.free(group) < width or source in left):
                    held.add(source)
                    if source in left:
                        left[source] -= other.free(group)
        fresh = iter([source for source in self.waiting if source not in held])
        binds = []
        for group, bound in enumerate(lane.bound):
            if lane.free(group) < width or bound in self.waiting:
                continue
            source = next(fresh, None) or max(left, key=lambda source: left[source], default=None)
            if source is None or (source in held and left[source] < width):
                break
            left[source] -= width
            held.add(source)
            lane.bound[group] = source
            binds.append((group, source))
        return binds

    def _prefill(self, sources: Sequence[Source]) -> None:
        """Prefills some sources and, where there is room left, of those that come next what takes no more columns."""
        P, buckets = self.shapes.sources, self.engine.settings.buckets
        chosen = list(dict.fromkeys(sources))[:P]
        columns = min(bucket for bucket in buckets if bucket >= max(map(self._kept, chosen)))
        held = {source for lane in self.lanes for source in lane.bound if source is not None}
        coming = (source for source in self.waiting if source not in held and self._kept(source) <= columns)
        chosen = list(dict.fromkeys([*chosen, *coming]))[:P]
        tokens = np.full((P, columns), self.shapes.pad, np.int32)
        length, prompt = (np.zeros(P, np.int32) for _ in range(2))
        for row, source in enumerate(chosen):
            length[row] = kept = self._kept(source)
            tokens[row, :kept] = source.tokens[:kept]
            prompt[row] = len(source.tokens) if source.given is None else source.given
        batch = self.engine.placement.put((tokens, length, prompt))
        prefilled = decode.prefill(
            self.engine.model, self.shapes.prefix_columns, self.shapes.cache, self.engine.params, *batch
        )
        self.prefilled = jax.device_put(prefilled, self.engine.placement.at(None, "kv_heads"))
        self.pool = {source: row for row, source in enumerate(chosen)}

    def _kept(self, source: Source) -> int:
        """How many tokens of a source are prefilled: no request of this pass continues more of it."""
        return min(len(source.tokens), self.shapes.prefix_columns)
