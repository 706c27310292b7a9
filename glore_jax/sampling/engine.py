"""The one sampler: drafts, rollouts, refinements and evaluation all go through `Engine.generate`.

A *source* is a token sequence that is prefilled once; a *request* continues a prefix of a source.
The K x L verifying traces of a draft share the one prefill of that draft. Finished requests leave
their slot at the end of a chunk and the next ones take it. What is sampled depends on the request's
id and the token position alone, not on batch, order or slot.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from glore_jax.errors import InputError
from glore_jax.models.decoder import Decoder
from glore_jax.parallel import mesh as meshes
from glore_jax.parallel import rules
from glore_jax.sampling import decode, passes


@dataclasses.dataclass(frozen=True)
class Request:
    """A continuation to sample.

    Attributes:
      id: names the randomness; unique in a call.
      source: index of the source it continues.
      length: how many tokens of the source are kept (at least one).
      temperature: 0 is greedy.
      limit: how many tokens it may write; `max_new_tokens` of the settings if None.
    """

    id: str
    source: int
    length: int
    temperature: float = 0.0
    limit: int | None = None


@dataclasses.dataclass(frozen=True)
class Completion:
    """Attributes: tokens (end token included), finished (ended by itself), logprob (sum, nats, temperature 1)."""

    tokens: tuple[int, ...]
    finished: bool
    logprob: float


def name_words(request_id: str) -> tuple[int, int]:
    """Sixty-four bits of a request's name, as two words."""
    digest = hashlib.sha256(request_id.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


class Engine:
    """Samples from one model.

    Args:
      model, params: the decoder.
      settings: `slots`, `sources`, `chunk`, `buckets` (prefix lengths that are compiled for),
        `max_new_tokens`.
      eos, pad: token ids.

    Raises:
      InputError: the slots or sources do not divide by the devices.
    """

    def __init__(self, model: Decoder, params: Any, settings: Any, eos: int, pad: int):
        self.model, self.settings = model, settings
        self.eos, self.pad = eos, pad
        self.mesh = meshes.make()
        for name in ("slots", "sources"):
            rules.check_rows(f"sampling.{name}", getattr(settings, name), self.mesh)
        self.params = jax.device_put(params, rules.replicated(self.mesh))

    def generate(
        self,
        sources: Sequence[Sequence[int]],
        requests: Sequence[Request],
        key: jax.Array,
        advance: Callable[[int, int], None] = lambda requests, tokens: None,
        prompts: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Completions in the order of the requests.

        Args:
          key: of the stage.
          advance: called with the numbers of requests and tokens finished since the last call.
          prompts: how many tokens of each source were given to the model, not written by it; all if None.

        Raises:
          InputError: a prefix longer than the largest bucket, or a limit that is not from 1 to `max_new_tokens`.
        """
        completions: dict[int, Completion] = {}
        prompts = [len(source) for source in sources] if prompts is None else prompts
        s = self.settings
        limits = [self._limit(request) for request in requests]
        lengths = [request.length for request in requests]
        for group in passes.plan(lengths, limits, s.buckets, s.max_new_tokens, s.slots, self.mesh.size):
            sizes = group.slots, s.sources, group.prefix_columns, group.ring
            shapes = decode.Shapes(*sizes, s.chunk, self.eos, self.pad)
            _Pass(self, shapes, sources, prompts, requests, limits, group.members, key, advance).run(completions)
        return [completions[i] for i in range(len(requests))]

    def _limit(self, request: Request) -> int:
        """How many tokens a request may write, if it can be sampled at all."""
        largest, most = max(self.settings.buckets), self.settings.max_new_tokens
        if request.length > largest:
            raise InputError(
                f"request {request.id}: its source has {request.length} tokens, more than the largest bucket "
                f"{largest}; raise sampling.buckets or shorten the question"
            )
        limit = most if request.limit is None else request.limit
        if not 0 < limit <= most:
            raise InputError(
                f"request {request.id}: it may write {limit} tokens; expected 1 to sampling.max_new_tokens={most}"
            )
        return limit


class _Pass:
    """The requests that share their shapes: refill, decode a chunk, harvest, until none is left."""

    def __init__(self, engine, shapes, sources, prompts, requests, limits, members, key, advance):
        self.engine, self.shapes, self.requests, self.limits = engine, shapes, requests, limits
        self.sources, self.prompts = sources, prompts
        self.key, self.advance = key, advance
        members = sorted(members, key=lambda i: requests[i].source)  # requests of one source lie together
        self.waiting = members[::-1]
        self.owner = [-1] * shapes.slots  # which request sits in a slot
        self.pool: dict[int, int] = {}  # source -> its row in `prefilled`
        self.prefilled: Any = None

    def run(self, completions: dict[int, Completion]) -> None:
        batch_sharding = rules.of_batch(self.engine.mesh)
        slots = decode.empty(self.engine.model.config, self.shapes)
        shardings = jax.tree.map(lambda x: batch_sharding if x.ndim else rules.replicated(self.engine.mesh), slots)
        slots = jax.device_put(slots, shardings)
        while self.waiting or max(self.owner) >= 0:
            free = [slot for slot, owner in enumerate(self.owner) if owner < 0]
            while free and self.waiting:
                slots, free = self._refill(slots, free)
            slots = decode.decode_chunk(self.engine.model, self.shapes, self.engine.params, slots, self.key)
            self._harvest(slots, completions)

    def _refill(self, slots: decode.Slots, free: list[int]) -> tuple[decode.Slots, list[int]]:
        if self.requests[self.waiting[-1]].source not in self.pool:
            self._prefill_next()
        B = self.shapes.slots
        request = {
            "fill": np.zeros(B, bool),
            "source": np.zeros(B, np.int32),
            "prefix": np.zeros(B, np.int32),
            "token": np.zeros(B, np.int32),
            "limit": np.zeros(B, np.int32),
            "temperature": np.zeros(B, np.float32),
            "name": np.zeros((B, 2), np.uint32),
        }
        while free and self.waiting and self.requests[self.waiting[-1]].source in self.pool:
            i, slot = self.waiting.pop(), free.pop()
            r = self.requests[i]
            self.owner[slot] = i
            request["fill"][slot] = True
            request["source"][slot] = self.pool[r.source]
            request["prefix"][slot] = r.length - 1
            request["token"][slot] = self.sources[r.source][r.length - 1]
            request["limit"][slot] = self.limits[i]
            request["temperature"][slot] = r.temperature
            request["name"][slot] = name_words(r.id)
        return decode.insert(slots, self.prefilled, rules.shard_batch(request, self.engine.mesh)), free

    def _prefill_next(self) -> None:
        """Prefills the sources of the next waiting requests, as many as fit."""
        chosen: list[int] = []
        for i in reversed(self.waiting):
            source = self.requests[i].source
            if not chosen or chosen[-1] != source:
                if len(chosen) == self.shapes.sources:
                    break
                chosen.append(source)
        tokens = np.full((self.shapes.sources, self.shapes.prefix_columns), self.shapes.pad, np.int32)
        length, prompt = (np.zeros(self.shapes.sources, np.int32) for _ in range(2))
        for row, source in enumerate(chosen):
            kept = self.sources[source][: self.shapes.prefix_columns]  # no request of this pass continues more of it
            tokens[row, : len(kept)] = kept
            length[row] = len(kept)
            prompt[row] = self.prompts[source]
        batch = rules.shard_batch((tokens, length, prompt), self.engine.mesh)
        prefilled = decode.prefill(self.engine.model, self.shapes, self.engine.params, *batch)
        self.prefilled = jax.device_put(prefilled, rules.replicated(self.engine.mesh))
        self.pool = {source: row for row, source in enumerate(chosen)}

    def _harvest(self, slots: decode.Slots, completions: dict[int, Completion]) -> None:
        active = np.asarray(slots.active_B)
        done = [slot for slot, owner in enumerate(self.owner) if owner >= 0 and not active[slot]]
        if not done:
            return
        written, logprob = np.asarray(slots.written_BxR), np.asarray(slots.logprob_B)
        tokens = 0
        for slot in done:
            row = written[slot, : self.limits[self.owner[slot]]]  # what comes after it may look like an end
            ends = np.flatnonzero(row == self.shapes.eos)
            size = int(ends[0]) + 1 if len(ends) else len(row)
            completions[self.owner[slot]] = Completion(
                tuple(int(t) for t in row[:size]), bool(len(ends)), float(logprob[slot])
            )
            tokens += size
            self.owner[slot] = -1
        self.advance(len(done), tokens)
