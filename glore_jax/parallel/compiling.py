"""How long JAX spends on tracing and compiling."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

_EVENTS = "/jax/core/compile/"


@contextlib.contextmanager
def counted() -> Iterator[Callable[[], float]]:
    """Yields: seconds since the block began; programs that come from the cache count with what fetching them takes."""
    spans: list[tuple[float, float]] = []

    def hear(event: str, start_time: float, end_time: float, **_: Any) -> None:
        if event.startswith(_EVENTS):
            while spans and spans[-1][0] >= start_time:  # traced on the way: what is inside is told first
                spans.pop()
            spans.append((start_time, end_time))

    jax.monitoring.register_event_time_span_listener(hear)
    try:
        yield lambda: sum(end - start for start, end in spans)
    finally:
        jax.monitoring.unregister_event_time_span_listener(hear)
