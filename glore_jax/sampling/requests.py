"""What is asked of the sampler, and what it gives back."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A sequence of tokens that is read once, whatever continues it.

    Attributes:
      tokens: ids.
      given: how many of them the model was given, the others it wrote; all if None. A prefix LM reads what it was
        given in both directions.
    """

    tokens: Sequence[int]
    given: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """A continuation to sample.

    Attributes:
      id: names the randomness; unique among the requests that are under way.
      source: what it continues.
      length: how many tokens of the source are kept (at least one).
      temperature: 0 is greedy.
      limit: how many tokens it may write; `max_new_tokens` of the settings if None.
      top_k, top_p: see `draws.draw`; 0 and 1 leave all tokens.
      stop: texts and token ids after which it ends. They are looked for between chunks, and what was written after the
        first of them is cut off.
      room: how many tokens a request that is added when this one completes may write, at most; such requests are
        sampled with this one, in the same slots, without a new prefill.
    """

    id: str
    source: Source
    length: int
    temperature: float = 0.0
    limit: int | None = None
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str | int, ...] = ()
    room: int = 0


@dataclasses.dataclass(frozen=True)
class Completion:
    """What a request wrote.

    Attributes:
      tokens: the end token, or the stop, included.
      reason: why it ended: `end` (an end token), `stop` or `limit`.
      logprobs: of each token under the model at temperature 1, nats.
    """

    tokens: tuple[int, ...]
    reason: str
    logprobs: tuple[float, ...]

    @property
    def finished(self) -> bool:
        """Whether it ended by itself."""
        return self.reason != "limit"

    @property
    def logprob(self) -> float:
        """Of the whole continuation, nats."""
        return sum(self.logprobs)


def name_words(request_id: str) -> tuple[int, int]:
    """Sixty-four bits of a request's name, as two words."""
    digest = hashlib.sha256(request_id.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
