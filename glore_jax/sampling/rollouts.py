"""Verifying traces: continuations of prefixes of a draft (paper section 3.2).

A draft's rollouts share its one prefill: each attends to the draft up to its own branch point and writes a suffix of
its own. Equal prefixes of drafts of one question are continued once, whoever asks for them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import jax

from glore_jax.records import Problem, Rollout, Solution
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.journal import Journal
from glore_jax.sampling.requests import Completion, Request, Source
from glore_jax.sampling.solutions import Advance
from glore_jax.text import formats
from glore_jax.text.tokenizers import Tokenizer


class Rollouts:
    """Rollouts under way: iterate for them as they finish; more may be asked for meanwhile.

    Rollout k of a prefix is the same whoever asks, and whatever else is sampled with it.

    Args:
      problems: those of the traces, by id.
      key: of the stage.
      advance: called with the numbers of rollouts and tokens that are done.
      journal: see `Engine.start`.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        problems: Mapping[str, Problem],
        temperature: float,
        key: jax.Array,
        advance: Advance = lambda requests, tokens: None,
        journal: Journal | None = None,
    ):
        self.engine, self.tokenizer, self.problems, self.temperature = engine, tokenizer, problems, temperature
        self._work = engine.start((), key, advance, journal)
        self._advance = advance
        self._sources: dict[str, Source] = {}  # by trace
        self._requests: dict[str, Request] = {}  # the latest of each name
        self._askers: dict[Request, list[tuple[Solution, int, int]]] = {}  # of those under way
        self._read: dict[str, tuple] = {}  # what they became, by name
        self._ready: deque[Rollout] = deque()

    def ask(self, trace: Solution, prefix: int, samples: Sequence[int], more: bool = False) -> None:
        """Asks for rollouts of P_`prefix` of a trace.

        Args:
          samples: their numbers.
          more: whether others of this trace may be asked for when these are done.
        """
        limit, room = self._limit(trace, prefix), self._limit(trace, 1) if more else 0
        source = self._source(trace)
        length = len(source.tokens) - trace.step_ends[-2] + trace.step_ends[prefix - 1]
        for sample, name in zip(samples, self._names(trace, prefix, samples), strict=True):
            asker = trace, prefix, sample
            if name in self._read:
                self._ready.append(Rollout(trace.id, prefix, sample, *self._read[name]))
                self._advance(1, 0)
            elif name in self._requests and self._requests[name] in self._askers:
                self._askers[self._requests[name]].append(asker)
            else:
                request = Request(name, source, length, self.temperature, limit, room=room)
                self._requests[name], self._askers[request] = request, [asker]
                self._work.add(request)

    def give_up(self, trace: Solution, prefix: int, samples: Sequence[int]) -> None:
        """Says that some rollouts are not needed any more; those that nobody else asked for are ended."""
        for sample, name in zip(samples, self._names(trace, prefix, samples), strict=True):
            request = self._requests[name]
            askers = self._askers.get(request, [])
            if (trace, prefix, sample) in askers:
                askers.remove((trace, prefix, sample))
                if not askers:
                    del self._askers[request]
                    self._work.cancel(request)

    def __iter__(self) -> Iterator[Rollout]:
        while self._ready or self._askers:
            yield from self._made()
            for request, completion in self._work:
                self._finish(request, completion)
                yield from self._made()

    def _made(self) -> Iterator[Rollout]:
        while self._ready:
            yield self._ready.popleft()

    def _finish(self, request: Request, completion: Completion) -> None:
        askers = self._askers.pop(request)
        ends = formats.step_ends(self.tokenizer, completion.tokens)
        text = formats.steps_text(self.tokenizer, completion.tokens, ends)
        right = formats.is_right(text, self.problems[askers[0][0].problem_id].answer)
        self._read[request.id] = completion.tokens, ends, text, right
        self._ready += [Rollout(trace.id, i, k, *self._read[request.id]) for trace, i, k in askers]
        if askers[1:]:
            self._advance(len(askers) - 1, 0)

    def _limit(self, trace: Solution, prefix: int) -> int:
        """Prefix and rollout together are as long as a solution may be, where the trace itself is no longer."""
        most = self.engine.settings.max_new_tokens
        return most - trace.step_ends[prefix - 1] if len(trace.tokens) <= most else most

    def _names(self, trace: Solution, prefix: int, samples: Sequence[int]) -> list[str]:
        """What names the randomness of some rollouts: the question and the prefix itself, not whose it is."""
        content = trace.tokens[: trace.step_ends[prefix - 1]], self._limit(trace, prefix)
        digest = hashlib.sha256(repr(content).encode()).hexdigest()[:16]
        return [f"{trace.problem_id}/{prefix} steps {digest}/{sample}" for sample in samples]

    def _source(self, trace: Solution) -> Source:
        if trace.id not in self._sources:
            prompt = formats.encode_prompt(self.tokenizer, self.problems[trace.problem_id].question)
            self._sources[trace.id] = Source([*prompt, *trace.tokens[: trace.step_ends[-2]]], len(prompt))
        return self._sources[trace.id]
