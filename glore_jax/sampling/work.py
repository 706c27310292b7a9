"""Requests under way: slots are refilled as they come free, and completions handed out as they finish.

The host looks at the slots once a chunk of decoding steps. What it then hands out is read (answers checked, say) while
the device decodes the next chunk; only completions that further requests may follow from (`Request.room`) come first.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from glore_jax.errors import InputError
from glore_jax.sampling import decode, passes
from glore_jax.sampling.requests import Completion, Request, Source, name_words

if TYPE_CHECKING:
    from glore_jax.sampling.engine import Engine

_WINDOW = 8192  # requests that are planned together
Finished = tuple[Request, Completion]


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
            rings = [max(e.limit(r), min(r.room, e.settings.max_new_tokens)) for r in window]
            sizes = e.settings.buckets, e.settings.max_new_tokens, e.slots, e.placement.parts("batch")
            for shape in passes.plan([r.length for r in window], rings, *sizes, [r.source for r in window]):
                yield from self._sampled(shape, [window[i] for i in shape.members])

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
    """The requests that share their shapes: refill, decode a chunk, harvest, until none is left."""

    def __init__(self, work: Work, shape: passes.Pass, requests: Sequence[Request]):
        self.work, self.engine = work, work.engine
        e = self.engine
        columns = shape.prefix_columns, shape.ring
        self.shapes = decode.Shapes(
            shape.slots, shape.width, e.settings.sources, *columns, e.settings.chunk, e.eos, e.pad, e.settings.cache
        )
        self.waiting: dict[Source, deque[Request]] = {}
        self.owner: list[Request | None] = [None] * shape.slots
        self.bound: list[Source | None] = [None] * (shape.slots // shape.width)  # what each group continues
        self.pool: dict[Source, int] = {}  # source -> its row in `prefilled`
        self.prefilled: Any = None
        self.behind: list[Finished] = []  # found, and not handed out yet
        # What continues a long source is likely to take long itself, and should not be left alone at the end.
        for request in sorted(requests, key=lambda request: -len(request.source.tokens)):
            self.waiting.setdefault(request.source, deque()).append(request)

    def take(self, request: Request) -> bool:
        """Lets a request join, if it fits."""
        fits = request.length <= self.shapes.prefix_columns and self.engine.limit(request) <= self.shapes.ring
        if fits:
            self.waiting.setdefault(request.source, deque()).append(request)
        return fits

    def unfinished(self) -> list[Request]:
        return [*filter(None, self.owner), *itertools.chain.from_iterable(self.waiting.values())]

    def run(self) -> Iterator[Finished]:
        slots = self._empty()
        while True:
            slots = self._refill(slots)
            if any(self.owner):
                slots = decode.decode_chunk(self.engine.model, self.shapes, self.engine.params, slots, self.work.key)
            elif not self.behind:
                return
            found, self.behind = self.behind, []
            yield from self._wanted(found)  # while the device decodes
            found = self._harvest(slots)
            yield from self._wanted(one for one in found if one[0].room)
            self.behind = [one for one in found if not one[0].room]

    def _wanted(self, found: Iterable[Finished]) -> Iterator[Finished]:
        """Without those that were given up while others were handed out."""
        return (one for one in found if one[0] not in self.work.cancelled)

    def _empty(self) -> decode.Slots:
        place = self.engine.placement
        slots = decode.empty(self.engine.model.config, self.shapes)
        return jax.device_put(slots, jax.tree.map(lambda x: place.at("batch") if x.ndim else place.whole, slots))

    def _refill(self, slots: decode.Slots) -> decode.Slots:
        """Gives waiting requests to free slots of groups that continue their source, and sources to free groups."""
        self._forget_cancelled()
        binds = self._binds()
        ready: list[tuple[int, int]] = []
        for at, (group, source) in enumerate(binds):
            if source not in self.pool:
                slots, ready = self._bind(slots, ready), []
                self._prefill([later for _, later in binds[at:]])
            ready.append((group, self.pool[source]))
        slots = self._bind(slots, ready)
        taken = []
        for slot, owner in enumerate(self.owner):
            source = self.bound[slot // self.shapes.width]
            queue = None if source is None else self.waiting.get(source)
            if owner is None and queue:
                self.owner[slot] = queue.popleft()
                taken.append(slot)
        self.waiting = {source: queue for source, queue in self.waiting.items() if queue}
        return self._insert(slots, taken) if taken else slots

    def _forget_cancelled(self) -> None:
        gone = self.work.cancelled
        if gone:
            self.owner = [None if owner in gone else owner for owner in self.owner]
            kept = {source: deque(r for r in queue if r not in gone) for source, queue in self.waiting.items()}
            self.waiting = {source: queue for source, queue in kept.items() if queue}

    def _binds(self) -> list[tuple[int, Source]]:
        """Which groups take which source now.

        A group takes one when its slots are free and nothing waits for what it had; if there is any, one that no group
        has, so that a source is kept once; else one for which there is a whole group to do.
        """
        width = self.shapes.width
        free = [self.owner[n * width : (n + 1) * width].count(None) for n in range(len(self.bound))]
        stays = [free[n] < width or source in self.waiting for n, source in enumerate(self.bound)]
        held = {source for source, kept in zip(self.bound, stays, strict=True) if kept}
        left = Counter({source: len(queue) for source, queue in self.waiting.items()})
        for n, source in enumerate(self.bound):
            if source is not None and source in left:
                left[source] -= free[n]
        fresh = iter([source for source in self.waiting if source not in held])
        binds = []
        for group in (n for n, kept in enumerate(stays) if not kept):
            source = next(fresh, None) or max(left, key=lambda source: left[source], default=None)
            if source is None or (source in held and left[source] < width):
                break
            left[source] -= width
            held.add(source)
            self.bound[group] = source
            binds.append((group, source))
        return binds

    def _bind(self, slots: decode.Slots, ready: Sequence[tuple[int, int]]) -> decode.Slots:
        if not ready:
            return slots
        source, fill = np.zeros(len(self.bound), np.int32), np.zeros(len(self.bound), bool)
        for group, row in ready:
            source[group], fill[group] = row, True
        return decode.bind(slots, self.prefilled, *self.engine.placement.put((source, fill)))

    def _prefill(self, sources: Sequence[Source]) -> None:
        """Prefills some sources and, where there is room left, those that come next."""
        held = {source for source in self.bound if source is not None}
        coming = [*sources, *(source for source in self.waiting if source not in held)]
        chosen = list(dict.fromkeys(coming))[: self.shapes.sources]
        tokens = np.full((self.shapes.sources, self.shapes.prefix_columns), self.shapes.pad, np.int32)
        length, prompt = (np.zeros(self.shapes.sources, np.int32) for _ in range(2))
        for row, source in enumerate(chosen):
            kept = source.tokens[: self.shapes.prefix_columns]  # no request of this pass continues more of it
            tokens[row, : len(kept)] = kept
            length[row] = len(kept)
            prompt[row] = len(source.tokens) if source.given is None else source.given
        batch = self.engine.placement.put((tokens, length, prompt))
        prefilled = decode.prefill(self.engine.model, self.shapes, self.engine.params, *batch)
        self.prefilled = jax.device_put(prefilled, self.engine.placement.whole)
        self.pool = {source: row for row, source in enumerate(chosen)}

    def _insert(self, slots: decode.Slots, taken: Sequence[int]) -> decode.Slots:
        B = self.shapes.slots
        names = ("prefix", "token", "limit", "top_k")
        request: dict[str, np.ndarray] = {name: np.zeros(B, np.int32) for name in names}
        request |= {name: np.zeros(B, np.float32) for name in ("temperature", "top_p")}
        request |= {"fill": np.zeros(B, bool), "name": np.zeros((B, 2), np.uint32)}
        for slot in taken:
            r = self.owner[slot]
            assert r is not None
            values = r.length - 1, r.source.tokens[r.length - 1], self.engine.limit(r), r.top_k
            for name, value in zip(names, values, strict=True):
                request[name][slot] = value
            request["temperature"][slot], request["top_p"][slot] = r.temperature, r.top_p
            request["fill"][slot], request["name"][slot] = True, name_words(r.id)
        return decode.insert(slots, self.engine.placement.put(request))

    def _harvest(self, slots: decode.Slots) -> list[Finished]:
        """What has ended since the last look; waits for the device."""
        active = np.asarray(slots.active_B)
        sitting = [(slot, r) for slot, r in enumerate(self.owner) if r is not None and r not in self.work.cancelled]
        looked = [(slot, r) for slot, r in sitting if r.stop or not active[slot]]
        if not looked:
            return []
        written, logprobs = np.asarray(slots.written_BxR), np.asarray(slots.logprob_BxR)
        start, step = np.asarray(slots.start_B), int(slots.step)
        found: list[Finished] = []
        for slot, request in looked:
            size = min(step - int(start[slot]), self.engine.limit(request))
            completion = self._completion(request, written[slot, :size], logprobs[slot, :size], bool(active[slot]))
            if completion is not None:
                found.append((request, completion))
                self.owner[slot] = None
        if found:
            self.work.advance(len(found), sum(len(completion.tokens) for _, completion in found))
        return found

    def _completion(self, request: Request, row: np.ndarray, logprobs: np.ndarray, active: bool) -> Completion | None:
        """Of what a request has written so far, or None if it has not ended."""
        ends = np.flatnonzero(row == self.shapes.eos)
        size, reason = (int(ends[0]) + 1, "end") if len(ends) else (len(row), "limit")
        stopped = self._stop(request, row[:size]) if request.stop else None
        if stopped is not None:
            size, reason = stopped, "stop"
        elif active:
            return None
        nats = logprobs[:size]
        if np.isnan(nats).any():
            raise InputError(
                f"request {request.id}: the logits of {self.engine.name} are not numbers after "
                f"{request.length + int(np.flatnonzero(np.isnan(nats))[0])} tokens; look for NaN among its weights"
            )
        return Completion(tuple(row[:size].tolist()), reason, tuple(nats.tolist()))

    def _stop(self, request: Request, row: np.ndarray) -> int | None:
        """How many tokens there are up to the first stop, or None where there is none."""
        tokens: list[int] = row.tolist()
        ids = {stop for stop in request.stop if isinstance(stop, int)}
        texts = [stop for stop in request.stop if isinstance(stop, str)]
        sizes = [at + 1 for at, token in enumerate(tokens) if token in ids][:1]
        text = self.engine.text
        if text is not None and texts and any(stop in text(tokens) for stop in texts):
            sizes.append(next(n for n in range(1, len(tokens) + 1) if any(stop in text(tokens[:n]) for stop in texts)))
        return min(sizes, default=None)
