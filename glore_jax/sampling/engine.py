"""The one sampler: drafts, rollouts, refinements and evaluation all go through an `Engine`.

A *source* is a token sequence that is prefilled once; a *request* continues a prefix of a source, so the K x L
verifying traces of a draft share the one prefill of that draft. What is sampled depends on the request's id and the
token position alone, not on batch, order or slot.

    engine.generate(requests, key)             # completions, in order

    work = engine.start(requests, key)         # or as they finish:
    for request, completion in work:
        work.add(...)                          # what follows from it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from glore_jax.errors import InputError
from glore_jax.models.decoder import Decoder
from glore_jax.models.execution import Execution
from glore_jax.parallel import hosts
from glore_jax.parallel import placement as placements
from glore_jax.parallel.placement import Placement
from glore_jax.sampling import decode, layouts, memory, precision
from glore_jax.sampling.journal import Journal, Recorded
from glore_jax.sampling.requests import Completion, Request
from glore_jax.sampling.work import Work

_SHOWN = 3  # requests that an error names


def _silent(requests: int, tokens: int) -> None: ...


class Engine:
    """Samples from one model.

    Args:
      model, params: the decoder, in whatever dtype.
      settings: `dtype`, `weights` and `cache` (see `precision`), `slots` (0: as many as there is memory for),
        `sources`, `chunk`, `buckets` (prefix lengths that are compiled for), `max_new_tokens`.
      eos, pad: token ids.
      name: of the model, for errors.
      text: what tokens say, for stops that are texts.
      placement: the devices; None: all, with the whole model on each. Those of other processes are left out, unless
        the model is split over more than this one has.

    Attributes:
      together: whether the processes of a job sample as one, each request on the devices of all.

    Raises:
      InputError: a precision that there is none of, slots or sources that do not divide by the devices, or a model that
        cannot be split over them.
    """

    def __init__(
        self,
        model: Decoder,
        params: Any,
        settings: Any,
        eos: int,
        pad: int,
        name: str = "the model",
        text: Callable[[Sequence[int]], str] | None = None,
        placement: Placement | None = None,
    ):
        precision.check(settings)
        self.settings, self.name, self.text, self.eos, self.pad = settings, name, text, eos, pad
        # A slot reads one token at a time, so there are no positions to split.
        self.placement = (placement or placements.make()).of_process().keeping("positions")
        self.together = self.placement.mesh.is_multi_process
        self.placement.check_rows("sampling.sources", settings.sources)
        self.model = Decoder(dataclasses.replace(model.config, dtype=settings.dtype), Execution(self.placement))
        kept = precision.kept(params if self.together else hosts.whole(params), settings)
        self.params = placements.lay(kept, precision.shardings(self.model, kept, self.placement))
        self.slots = memory.slots(self.model.config, settings, self.placement)  # fewer, once a device ran out of memory
        self.programs: dict[decode.Shapes, layouts.Programs] = {}

    def programs_of(self, shapes: decode.Shapes) -> layouts.Programs:
        """What is done to slots of these shapes."""
        if shapes not in self.programs:
            self.programs[shapes] = layouts.Programs(self.model, shapes, self.params, self.placement)
        return self.programs[shapes]

    def generate(
        self,
        requests: Sequence[Request],
        key: jax.Array,
        advance: Callable[[int, int], None] = _silent,
        journal: Journal | None = None,
    ) -> list[Completion]:
        """Completions in the order of the requests; arguments and errors of `start`.

        All processes of a job ask for the same. Where each has an engine of its own it samples the requests of some
        sources, and what it has found goes to all; where they have one together, they do the same at the same time.
        """
        self.check(requests)
        if self.together:
            own = {request.id: completion for request, completion in self.start(requests, key, advance, journal)}
            return [own[request.id] for request in requests]
        sources = set(hosts.share(list(dict.fromkeys(request.source for request in requests))))
        mine = [request for request in requests if request.source in sources]
        own = {request.id: completion for request, completion in self.start(mine, key, advance, journal)}
        found: dict[str, Completion] = {}
        for part in hosts.gather("samples", own):
            found |= part
        if len(found) > len(own):
            advance(0, sum(len(found[request.id].tokens) for request in requests if request.id not in own))
        return [found[request.id] for request in requests]

    def start(
        self,
        requests: Iterable[Request],
        key: jax.Array,
        advance: Callable[[int, int], None] = _silent,
        journal: Journal | None = None,
    ) -> Work | Recorded:
        """Requests under way: iterate over them for each and its completion, as they finish.

        Args:
          requests: read a few thousand at a time, so they may be more than memory holds.
          key: of the stage.
          advance: called with the numbers of requests and tokens finished since the last call.
          journal: what is in it is not sampled again, and what finishes is written to it.

        Raises:
          InputError: a prefix longer than the largest bucket, a limit that is not from 1 to `max_new_tokens`, or a
            model whose logits are not numbers.
        """
        if journal is None or self.together:  # whose processes must not find different things in it
            return Work(self, requests, key, advance)
        return Recorded(lambda others: Work(self, others, key, advance), requests, journal, advance)

    def check(self, requests: Sequence[Request]) -> None:
        """InputError where some requests cannot be sampled; it names the first few."""
        largest, most = max(self.settings.buckets), self.settings.max_new_tokens
        if long := [r for r in requests if r.length > largest]:
            others = f" ({len(long)} such requests: {', '.join(r.id for r in long[:_SHOWN])}, ...)" if long[1:] else ""
            raise InputError(
                f"request {long[0].id}: its source has {long[0].length} tokens, more than the largest bucket "
                f"{largest}; raise sampling.buckets or shorten the question{others}"
            )
        for request in requests:
            limit = self.limit(request)
            if not 0 < limit <= most:
                raise InputError(
                    f"request {request.id}: it may write {limit} tokens; expected 1 to sampling.max_new_tokens={most}"
                )
            if self.text is None and any(isinstance(stop, str) for stop in request.stop):
                raise InputError(f"request {request.id}: it stops at a text, and this engine was made without `text`")

    def limit(self, request: Request) -> int:
        return self.settings.max_new_tokens if request.limit is None else request.limit
