"""A lane: slots that decode together, and the requests that sit in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from glore_jax.errors import InputError
from glore_jax.parallel import hosts
from glore_jax.sampling import decode
from glore_jax.sampling.requests import Completion, Request, Source, name_words

if TYPE_CHECKING:
    from glore_jax.sampling.engine import Engine

Finished = tuple[Request, Completion]


class Lane:
    """Slots on the devices and who has them.

    Attributes:
      owner: the request in each slot.
      bound: the source that each group of slots continues.
    """

    def __init__(self, engine: Engine, shapes: decode.Shapes):
        self.engine, self.shapes = engine, shapes
        self.owner: list[Request | None] = [None] * shapes.slots
        self.bound: list[Source | None] = [None] * (shapes.slots // shapes.width)
        self._programs = engine.programs_of(shapes)
        self._slots = self._programs.empty()

    def free(self, group: int) -> int:
        """How many slots of a group nobody has."""
        width = self.shapes.width
        return self.owner[group * width : (group + 1) * width].count(None)

    def bind(self, prefilled: Any, rows: Sequence[tuple[int, int]]) -> None:
        """Gives prefilled sources to groups: to each group the row that it is paired with."""
        if not rows:
            return
        source, fill = np.zeros(len(self.bound), np.int32), np.zeros(len(self.bound), bool)
        for group, row in rows:
            source[group], fill[group] = row, True
        self._slots = self._programs.bind(self._slots, prefilled, *self.engine.placement.put((source, fill)))

    def insert(self, taken: Sequence[int]) -> None:
        """Lets the new owners of some slots begin."""
        if not taken:
            return
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
        self._slots = self._programs.insert(self._slots, self.engine.placement.put(request))

    def decode(self, key: jax.Array) -> None:
        """Begins a chunk of steps; returns at once."""
        self._slots = self._programs.decode_chunk(self._slots, key)

    def harvest(self, cancelled: Collection[Request]) -> list[Finished]:
        """What has ended since the last look; waits for the chunk that was begun last."""
        sitting = [(slot, r) for slot, r in enumerate(self.owner) if r is not None and r not in cancelled]
        if not sitting:
            return []
        active = np.asarray(hosts.whole(self._slots.active_B))
        looked = [(slot, r) for slot, r in sitting if r.stop or not active[slot]]
        if not looked:
            return []
        s = self._slots
        read = hosts.whole((s.written_BxR, s.logprob_BxR, s.start_B, s.step))
        written, logprobs, start, step = map(np.asarray, read)
        found: list[Finished] = []
        for slot, request in looked:
            size = min(int(step) - int(start[slot]), self.engine.limit(request))
            completion = self._completion(request, written[slot, :size], logprobs[slot, :size], bool(active[slot]))
            if completion is not None:
                found.append((request, completion))
                self.owner[slot] = None
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
