"""torch on the accelerator, for benchmarks/accelerator.py: the same weights, sizes and card.

Needs the extra `parity`.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import training
from peer import Peer

from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.training.batches import Example


def sees_cuda() -> bool:
    return torch.cuda.is_available()


def wait() -> None:
    if sees_cuda():
        torch.cuda.synchronize()


def leave() -> None:
    """Gives the card's memory back."""
    gc.collect()
    if sees_cuda():
        torch.cuda.empty_cache()


class Side:
    """The model in transformers, in bfloat16; times are seconds, medians of several."""

    def __init__(self, config: DecoderConfig, params: Any, device: str, repeats: int):
        self.peer = Peer(Decoder(config), params, None, 0, device, config.dtype)
        self.device, self.words, self.repeats = device, config.vocab_size, repeats

    def leave(self) -> None:
        del self.peer
        leave()

    def decode(self, rows: int, context: int, new: int) -> float:
        """Of a step of `generate`: what so many new tokens take more than one."""
        sources = np.random.default_rng(0).integers(3, self.words, (rows, context)).tolist()

        def taken(limit: int) -> float:
            begun = time.perf_counter()
            self.peer.sample(sources, [context] * rows, 1, limit)
            return time.perf_counter() - begun

        taken(2)
        return statistics.median((taken(new + 1) - taken(1)) / new for _ in range(self.repeats // 2))

    @torch.no_grad()
    def prefill(self, rows: int, context: int) -> float:
        tokens = torch.randint(3, self.words, (rows, context), device=self.device)
        return seconds(lambda: self.peer.model.model(input_ids=tokens, use_cache=True), self.repeats)


def training_step(
    kind: str, config: DecoderConfig, params: Any, examples: Sequence[Example], settings: Any, device: str
) -> float:
    """Seconds of a step on full rows, read causally without a mask."""
    side = training.Theirs(training.Work(kind, config, params, examples, settings, 4, 1), "bfloat16")
    side.model.to(device)
    side.head.to(device)
    work = training.Work(kind, config, None, examples, settings, 4, 1)
    feed = (
        {name: None if x is None else x.to(device) for name, x in batch.items()}
        for batch in training.padded(work, settings.rows)
    )
    with torch.autocast(device, torch.bfloat16):  # theirs names the CPU
        rate = side.rate(feed)
    del side
    leave()
    return settings.rows * settings.row_length / rate


def seconds(run: Callable[[], Any], repeats: int) -> float:
    run()
    wait()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        wait()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)
