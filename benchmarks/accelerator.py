"""What one GPU or TPU reaches with a Llama of a billion parameters, as a share of what it can, and beside torch.

python benchmarks/accelerator.py                             all parts, within eight minutes
python benchmarks/accelerator.py --parts decode prefill      some of them
python benchmarks/accelerator.py --small                     the same code on a tiny model, on a CPU too: does it run?

The model has the sizes of Llama 3.2 1B and random weights, in bfloat16. All is compiled and warm, times are medians of
several. Prints JSON, a line for each figure:

ceilings   the two that shares are of, measured first: bytes a second of a copy (read and written), operations a second
           of a product of two square matrices in bfloat16
decode     a step of the sampler's own program (sampling/layouts.py), B slots that each see C prompt columns and all new
           ones. Share of the copy: the bytes that a step has to read, which are
               2 x weights (models/flops.py) + B x columns x layers x 2 x key heads x head size x 2
           over the seconds of the step. Goal 0.8
prefill    the sampler's prefill of 16,384 tokens. Share of the product: operations by models/flops.py of all layers but
           the last, of which keys and values alone are needed. Goal 0.6
rollouts   drafts of 8 steps, 8 rollouts from each, by the engine: a source a draft, or a source a rollout, as whoever
           sends one prompt after another to a server has it: seconds, and tokens prefilled. From the last prefix all of
           the draft was read
language   a training step on 16,384 tokens in rows of 1,024 and 2,048: bfloat16, AdamW with float32 moments, layers
           scanned. Share of the product: operations by models/flops.py. Goal 0.7
value      the same of a value model
peer       the same in transformers on the same card, where torch sees it: `generate` with its cache as it grows, its
           prefill, and a training step of eager torch with autocast and fused AdamW. Else `absent`, with the reason

Each part says how long it took. A part that fails says so, the others still run, and the exit code is 1. When the
time is over (--seconds) what is left is named and left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glore_jax import cli, configuration
from glore_jax.models import decoder, flops, value_head
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.models.execution import Execution
from glore_jax.parallel import placement as placements
from glore_jax.sampling import decode, layouts
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Request, Source
from glore_jax.training import batches, beginning, losses

LLAMA = DecoderConfig(
    128_256, d_model=2048, num_layers=16, num_heads=32, num_kv_heads=8, head_dim=64, d_ff=8192, dtype="bfloat16",
    rope_theta=500_000.0, rope_factor=32.0, rope_original=8192, rope_high=4.0, tied_embedding=True,
)  # fmt: skip
TINY = DecoderConfig(
    256, d_model=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=96, dtype="bfloat16",
    tied_embedding=True,
)  # fmt: skip
GOALS = {"decode": 0.8, "prefill": 0.6, "language": 0.7, "value": 0.7}
PARTS = ("decode", "prefill", "rollouts", "language", "value", "peer")
STEPS = EACH = 8  # of a draft, and rollouts from each
LANGUAGE = 0.02  # weight of a token's surprise in the loss of a value model

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
      slots, contexts: of decoding, each with each.
      new: columns for new tokens.
      chunk: decoding steps of one call.
      tokens: of a prefill, and of a training step.
      rows: their lengths, in training.
      drafts: that are rolled out; question, step: tokens of a draft's parts.
      matrix: side of the square matrices; copied: bytes.
      repeats: of which a time is the median.
    """

    config: DecoderConfig
    slots: Sequence[int] = (64, 128, 256)
    contexts: Sequence[int] = (512, 1024)
    new: int = 64
    chunk: int = 16
    tokens: int = 16_384
    rows: Sequence[int] = (1024, 2048)
    drafts: int = 32
    question: int = 256
    step: int = 32
    matrix: int = 8192
    copied: int = 2**30
    repeats: int = 5


SMALL = Sizes(TINY, (8,), (16,), 8, 4, 64, (16,), 2, 8, 3, 64, 2**16, 2)


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Of a call, the median of several; what it returns is waited for."""
    jax.block_until_ready(run())
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


class Card:
    """One accelerator and what is measured on it; see above."""

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        self.place = placements.make(devices=jax.devices()[:1])
        self.model = Decoder(sizes.config, Execution(self.place))
        init = jax.jit(lambda key: jax.tree.map(lambda x: x.astype(jnp.bfloat16), decoder.init(self.model, key)))
        self.params = jax.device_get(init(jax.random.key(0)))  # on the host, as torch wants the memory first
        self.theirs: dict[tuple[str, int, int], float] = {}  # seconds, by part and sizes
        self.copied, self.products = self.copy_rate(), self.product_rate()

    def copy_rate(self) -> float:
        """Bytes a second, read and written."""
        x = jnp.zeros(self.sizes.copied // 2, jnp.bfloat16)
        times = 10
        run = jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, x: x + jnp.ones((), x.dtype), x))
        return times * 2 * x.nbytes / seconds(lambda: run(x), self.sizes.repeats)

    def product_rate(self) -> float:
        """Operations a second."""
        n, times = self.sizes.matrix, 10
        x = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16) * jnp.asarray(n**-0.5, jnp.bfloat16)
        run = jax.jit(lambda x: functools.reduce(lambda y, _: x @ y, range(times), x))  # a loop would copy y
        return times * 2 * n**3 / seconds(lambda: run(x), self.sizes.repeats)

    def ceilings(self) -> Row:
        return {"part": "ceilings", "copy_bytes_a_second": self.copied, "product_flops_a_second": self.products}

    @functools.cached_property
    def here(self) -> Any:
        return jax.device_put(self.params, self.place.whole)

    def shapes(self, slots: int, context: int) -> decode.Shapes:
        s = self.sizes
        return decode.Shapes(slots, 1, max(1, s.tokens // context), context, s.new, s.chunk, s.config.vocab_size, 0)

    def prefilling(self, context: int) -> Callable[[], Any]:
        """A prefill of random prompts, which are on the card already."""
        shapes, draw = self.shapes(1, context), np.random.default_rng(0)
        tokens = draw.integers(3, self.sizes.config.vocab_size, (shapes.sources, context)).astype(np.int32)
        length = np.full(shapes.sources, context, np.int32)
        kept = shapes.prefix_columns, shapes.cache
        return functools.partial(
            decode.prefill, self.model, *kept, self.here, *self.place.put((tokens, length, length))
        )

    def result(self, part: str, case: Row, taken: float, share: float, goal: str, **more: Any) -> Row:
        """A line: what was done, how fast, which share of the ceiling that is, and how much faster than torch."""
        theirs = self.theirs.get((part, *case.values()))
        peer = {} if theirs is None else {"transformers_seconds": theirs, "times_as_fast": theirs / taken}
        aim = {"share": share, "goal": GOALS[goal], "reached": share >= GOALS[goal]}
        return case | {"seconds": taken} | more | aim | peer

    def decode(self) -> Iterator[Row]:
        s, c = self.sizes, self.sizes.config
        cases = [(slots, context) for context in s.contexts for slots in s.slots]
        with ThreadPoolExecutor() as pool:  # compiling takes longer than decoding
            make = lambda case: layouts.Programs(self.model, self.shapes(*case), self.here, self.place)  # noqa: E731
            made = list(pool.map(make, cases))
        for (slots, context), programs in zip(cases, made, strict=True):
            taken = self.step_of(programs, slots, context)
            read = 2 * flops.weights(c)
            read += slots * (context + s.new) * c.num_layers * 2 * c.num_kv_heads * c.head_dim * 2
            case = {"slots": slots, "context": context}
            more = {"bytes": read, "tokens_a_second": slots / taken}
            yield self.result("decode", case, taken, read / taken / self.copied, "decode", **more)

    def step_of(self, programs: layouts.Programs, slots: int, context: int) -> float:
        """Seconds of a decoding step once all new columns are seen, too."""
        prefilled, key = self.prefilling(context)(), jax.random.key(0)
        source = np.arange(slots, dtype=np.int32) % self.shapes(1, context).sources
        held = programs.bind(programs.empty(), prefilled, *self.place.put((source, np.ones(slots, bool))))
        values = {"prefix": context - 1, "token": 3, "limit": self.sizes.new, "top_k": 0}
        request: Row = {name: np.full(slots, value, np.int32) for name, value in values.items()}
        request |= {name: np.ones(slots, np.float32) for name in ("temperature", "top_p")}
        names = np.arange(2 * slots, dtype=np.uint32).reshape(slots, 2)
        held = programs.insert(held, self.place.put(request | {"fill": np.ones(slots, bool), "name": names}))

        def chunk() -> jax.Array:
            nonlocal held
            held = programs.decode_chunk(held, key)
            return held.token_B

        for _ in range(self.sizes.new // self.sizes.chunk):
            chunk()
        return seconds(chunk, self.sizes.repeats) / self.sizes.chunk

    def prefill(self) -> Iterator[Row]:
        for context in self.sizes.contexts:
            taken = seconds(self.prefilling(context), self.sizes.repeats)
            rows, c = self.shapes(1, context).sources, self.sizes.config
            before = dataclasses.replace(c, num_layers=c.num_layers - 1)
            work = flops.reading(before, rows * context, context / 2, with_logits=False)
            work += rows * context * 2 * c.d_model * 2 * c.num_kv_heads * c.head_dim
            case = {"rows": rows, "context": context}
            more = {"flops": work, "tokens_a_second": rows * context / taken}
            yield self.result("prefill", case, taken, work / taken / self.products, "prefill", **more)

    def rollouts(self) -> Iterator[Row]:
        s = self.sizes
        longest, draw = s.question + STEPS * s.step, np.random.default_rng(0)
        settings = defaults().sampling.copy_and_resolve_references()
        settings.update(
            {"dtype": "bfloat16", "slots": max(s.slots), "sources": min(32, max(s.slots)), "chunk": s.chunk}
        )
        settings.update({"buckets": (longest,), "max_new_tokens": s.new})
        drafts = [draw.integers(3, s.config.vocab_size, longest).tolist() for _ in range(s.drafts)]
        never = s.config.vocab_size  # ends a rollout: all are as long as they may be
        engine = Engine(self.model, self.params, settings, eos=never, pad=0, placement=self.place)
        found = {}
        for shared in (True, False):
            requests = rolled_out(drafts, s, shared)
            with Prefilled() as counted:
                run = lambda requests=requests: engine.generate(requests, jax.random.key(0))  # noqa: E731
                run()
                counted.tokens = 0
                taken = seconds(run, max(1, s.repeats // 2))
                prefilled = counted.tokens // (1 + max(1, s.repeats // 2))
            found[shared] = taken, prefilled
            about = {"prefix": "shared" if shared else "not shared", "rollouts": len(requests), "seconds": taken}
            yield about | {"prefilled_tokens": prefilled, "tokens_a_second": len(requests) * s.new / taken}
        (taken, prefilled), (alone, more) = found[True], found[False]
        yield {"times_as_fast": alone / taken, "prefilled_tokens_over_unshared": prefilled / more}

    def language(self) -> Iterator[Row]:
        return self.training("language", losses.language, {})

    def value(self) -> Iterator[Row]:
        head = value_head.init(jax.random.key(0), self.sizes.config.d_model, surprise=True)
        return self.training("value", functools.partial(losses.value, language=LANGUAGE), {"value_head": head})

    def training(self, kind: str, loss: Any, head: Row) -> Iterator[Row]:
        for length in self.sizes.rows:
            rows = self.sizes.tokens // length
            settings = self.settings(rows, length)
            start = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {"decoder": self.params} | head)
            total, key = settings.steps, jax.random.key(0)
            begun = beginning.begin(self.model, start, loss, settings, total, self.place, key, spend=True)
            batch = next(batches.epochs(self.examples(kind, length), length, rows, 0))
            taken = self.training_step(begun, self.place.put(batch, "batch", "positions"))
            work = flops.training(self.sizes.config, rows, length)
            case = {"rows": rows, "length": length}
            more = {"flops": work, "tokens_a_second": rows * length / taken}
            yield self.result(kind, case, taken, work / taken / self.products, kind, **more)

    def training_step(self, begun: beginning.Beginning, batch: Any) -> float:
        state = begun.state

        def step() -> Any:
            nonlocal state
            state, metrics = begun.laid.step(state, batch, begun.frozen, math.inf)
            return metrics

        return seconds(step, self.sizes.repeats)

    def settings(self, rows: int, length: int) -> Any:
        settings = defaults().sft.train.copy_and_resolve_references()
        settings.update({"optimizer": "adamw", "steps": 100, "scan": True, "rows": rows, "row_length": length})
        return settings

    def examples(self, kind: str, length: int) -> list[batches.Example]:
        """Rows that are full, of random tokens."""
        rows = np.random.default_rng(0).integers(3, self.sizes.config.vocab_size, (64, length + 1)).tolist()
        ends = range(length // 8, length, length // 8)
        if kind == "language":
            return [batches.language_example(row[:1], row[1:]) for row in rows]
        return [batches.value_example(row[:1], row[1:length], ends, [1.0] * len(ends)) for row in rows]

    def peer(self, parts: Sequence[str]) -> Iterator[Row]:
        """Before anything else is on the card."""
        there = card_of_torch()
        if isinstance(there, str):
            yield {"absent": there}
            return
        module, device = there
        s = self.sizes
        side = module.Side(s.config, self.params, device, s.repeats)
        for context in s.contexts:
            for slots in s.slots if "decode" in parts else ():
                taken = self.theirs["decode", slots, context] = side.decode(slots, context, s.new)
                yield {"like": "decode", "slots": slots, "context": context, "seconds": taken}
            if "prefill" in parts:
                rows = self.shapes(1, context).sources
                taken = self.theirs["prefill", rows, context] = side.prefill(rows, context)
                yield {"like": "prefill", "rows": rows, "context": context, "seconds": taken}
        side.leave()
        for kind in ("language", "value"):
            for length in s.rows if kind in parts else ():
                rows = s.tokens // length
                given = kind, s.config, self.params, self.examples(kind, length), self.settings(rows, length)
                taken = self.theirs[kind, rows, length] = module.training_step(*given, device)
                yield {"like": kind, "rows": rows, "length": length, "seconds": taken}


class Prefilled:
    """Counts the tokens that are prefilled while it is open."""

    def __enter__(self) -> Prefilled:
        self.tokens, self._whole = 0, decode.prefill
        decode.prefill = self  # pyright: ignore[reportAttributeAccessIssue]
        return self

    def __exit__(self, *error: object) -> None:
        decode.prefill = self._whole

    def __call__(self, model: Decoder, columns: int, kind: str, params: Any, *batch: jax.Array) -> Any:
        self.tokens += int(np.asarray(batch[1]).sum())
        return self._whole(model, columns, kind, params, *batch)


def rolled_out(drafts: Sequence[list[int]], sizes: Sizes, shared: bool) -> list[Request]:
    """Rollouts of every prefix of every draft; each draft one source, or each rollout one of its own."""
    found = []
    for n, draft in enumerate(drafts):
        whole = Source(draft, sizes.question)
        for i in range(1, STEPS + 1):
            length = sizes.question + i * sizes.step
            for k in range(EACH):
                source = whole if shared else Source(draft[:length], sizes.question)
                found.append(Request(f"{n}/{i}/{k}", source, length, 1.0))
    return found


@functools.cache
def defaults() -> Any:
    return configuration.load(str(Path(__file__).parents[1] / "configs" / "arithmetic.py"))


def card_of_torch() -> tuple[ModuleType, str] | str:
    """What measures torch, and the name of its device; or why there is none."""
    try:
        module = importlib.import_module("accelerator_peer")
    except ImportError as error:
        return f"{error}; the extra `parity` has it"
    platform = jax.devices()[0].platform
    if platform == "cpu":
        return module, "cpu"
    if platform != "gpu":
        return f"no torch here computes on a {platform}"
    return (module, "cuda") if module.sees_cuda() else "torch is here, and sees no CUDA"


def say(row: Row) -> None:
    def short(x: Any) -> Any:
        return float(f"{x:.4g}") if isinstance(x, float) else x

    print(json.dumps({name: short(x) for name, x in row.items()}), flush=True)


def measured(part: str, rows: Iterator[Row], deadline: float) -> bool:
    """Prints the lines of a part; whether all went well."""
    begun, well = time.monotonic(), True
    try:
        while time.monotonic() < deadline:
            row = next(rows, None)
            if row is None:
                break
            say({"part": part} | row)
        else:
            say({"part": part, "left_out": "what has no line, as the time is over; --seconds gives more"})
    except Exception as error:  # a card is rarely at hand: what else it can be asked is asked
        well = False
        say({"part": part, "failed": f"{type(error).__name__}: {error}"[:600]})
    stats = jax.devices()[0].memory_stats() or {}
    say({"part": part, "wall_seconds": time.monotonic() - begun, "peak_memory": stats.get("peak_bytes_in_use")})
    return well


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--small", action="store_true", help="a tiny model")
    parser.add_argument("--seconds", type=float, default=460.0, help="after which nothing more is begun")
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch wants memory of the same card
    cli.prepare_jax(configuration.ConfigDict())
    device = jax.devices()[0]
    sizes = SMALL if options.small else Sizes(LLAMA)
    if device.platform == "cpu" and not options.small:
        parser.error("JAX sees no accelerator here; --small runs on a CPU")
    card = Card(sizes)
    count = sum(x.size for x in jax.tree.leaves(card.params))
    say({"device": device.device_kind, "platform": device.platform, "jax": jax.__version__, "parameters": count})
    say(card.ceilings())
    deadline, well = begun + options.seconds, True
    for part in sorted(options.parts, key=lambda part: part != "peer"):
        rows = card.peer(options.parts) if part == "peer" else getattr(card, part)()
        well &= measured(part, rows, deadline)
    say({"wall_seconds": time.monotonic() - begun})
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
