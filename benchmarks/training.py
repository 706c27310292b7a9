"""Real tokens a second of a training step beside transformers: the same weights, examples, loss and optimizer.

python benchmarks/training.py runs/arithmetic            what a run trains its student and its ORM on
python benchmarks/training.py runs/arithmetic --large    a random Llama of 134 million parameters, rows of 512 tokens,
                                                         on one device with both threads

A processor that has no products of bfloat16 takes ten times as long for them in torch: --dtypes float32.

Here the steps are those of `glore_jax/training/loop.py`: rows as configured, and as many tokens in rows of two and four
times the length, which packing fills better. There they are eager torch, LlamaForCausalLM with sdpa, clipped
gradients and fused AdamW, two threads, in two ways: *packed*, the very rows and masks that are configured here; and
*padded*, examples of like length side by side, read causally without any mask, which is the least work. Padding counts
as no token anywhere. AdamW on both sides; Muon, which runs use, beside it.

Needs the extra `parity`. All ways take turns, for a stretch of steps each, so that a machine that is slower for a while
is so for all of them. Prints JSON: tokens a second (medians of the stretches), and the ratios of the same rows, and of
the best of each side. Five minutes a kind of step on two cores, and as long with --large and --rounds 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from peer import Peer

from glore_jax import cli, configuration, files
from glore_jax.method import expert_iteration, reward_models
from glore_jax.models import decoder, value_head
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.models.visibility import Visibility
from glore_jax.records import Problem, Solution
from glore_jax.stages import artifacts
from glore_jax.text import pretrained
from glore_jax.training import batches, loop, losses
from glore_jax.training.batches import Example

LARGE = DecoderConfig(32_000, d_model=768, num_layers=12, num_heads=12, num_kv_heads=12, head_dim=64, d_ff=2048)
DTYPES = ("float32", "bfloat16")
SAME, LONGER, MUON = "glore_jax", "glore_jax, longer rows", "glore_jax, Muon"
PACKED, PADDED = "transformers, packed", "transformers, padded"
LANGUAGE = 0.02  # weight of a token's surprise in the loss of a value model

functional = torch.nn.functional


@dataclasses.dataclass(frozen=True)
class Work:
    """What both sides train.

    Attributes:
      kind: `language` or `value`.
      warm: steps before a stretch; the first ones find no memory that was used before.
      steps: of a stretch.
    """

    kind: str
    config: DecoderConfig
    params: Any
    examples: Sequence[Example]
    settings: Any
    warm: int
    steps: int


def embedded(workdir: Path) -> tuple[DecoderConfig, Any, dict[str, list[Example]]]:
    """A run's base model, and the examples of its student and of its ORM."""
    model, params = artifacts.read_model(workdir / "base", "float32")
    tokenizer = pretrained.reopen(workdir / "base")
    problems = files.read_table(workdir / "problems" / "train.parquet", Problem)
    traces = files.read_table(workdir / "traces" / "traces.parquet", Solution)
    by_id, labels = {problem.id: problem for problem in problems}, reward_models.orm_labels(traces)
    prefix_lm = model.config.prefix_lm
    gold = expert_iteration.gold_examples(tokenizer, problems, prefix_lm)
    judged = reward_models.examples(tokenizer, by_id, traces, labels, prefix_lm)
    return model.config, params["decoder"], {"language": gold, "value": judged}


def large() -> tuple[DecoderConfig, Any, dict[str, list[Example]]]:
    rows = np.random.default_rng(0).integers(3, LARGE.vocab_size, (64, 513)).tolist()
    ends = range(64, 512, 64)
    language = [batches.language_example(row[:1], row[1:]) for row in rows]
    value = [batches.value_example(row[:1], row[1:512], ends, [1.0] * len(ends)) for row in rows]
    return (
        LARGE,
        jax.device_get(decoder.init(Decoder(LARGE), jax.random.key(0))),
        {"language": language, "value": value},
    )


def ours(work: Work, dtype: str, optimizer: str = "adamw", times: int = 1) -> float:
    """Real tokens a second of the loop, with rows so many times as long as configured, and so many fewer."""
    settings = work.settings.copy_and_resolve_references()
    settings.update({"optimizer": optimizer, "learning_rate": 0.001, "steps": work.warm + work.steps})
    settings.update({"rows": settings.rows // times, "row_length": settings.row_length * times})
    loss: Any = losses.language
    start: Any = {"decoder": work.params}
    if work.kind == "value":
        start["value_head"] = value_head.init(jax.random.key(0), work.config.d_model, surprise=True)
        loss = functools.partial(losses.value, language=LANGUAGE)
    model = Decoder(dataclasses.replace(work.config, dtype=dtype))
    clock: list[float] = []
    loop.train(model, start, loss, work.examples, settings, 0, advance=lambda *_: clock.append(time.perf_counter()))
    feed = batches.epochs(work.examples, settings.row_length, settings.rows, 0)
    tokens = [int((batch["segments"] > 0).sum()) for batch in itertools.islice(feed, settings.steps)]
    # At the call for a step the one before it is done: `advance` comes after its metrics are read.
    return sum(tokens[work.warm - 1 : -1]) / (clock[-1] - clock[work.warm - 1])


def packed(work: Work) -> Iterator[dict[str, Any]]:
    """The rows that are configured here, with the mask of all pairs of their tokens."""
    for batch in batches.epochs(work.examples, work.settings.row_length, work.settings.rows, 0):
        mask = np.asarray(Visibility(jnp.asarray(batch["segments"]), jnp.asarray(batch["prefix"])).mask())
        yield {name: torch.from_numpy(array) for name, array in batch.items()} | {"mask": torch.tensor(mask)}


def padded(work: Work, size: int) -> Iterator[dict[str, Any]]:
    """So many examples of like length, one a row; causal attention needs no mask where padding is at the end."""
    ordered = sorted(work.examples, key=len)
    for step in itertools.count():
        at = int(np.random.default_rng(step).integers(0, len(ordered) - size + 1))
        rows = [[i] for i in range(at, at + size)]
        batch = batches._fill(ordered, rows, max(len(ordered[i]) for (i,) in rows))
        yield {name: torch.from_numpy(array) for name, array in batch.items()} | {"mask": None}


class Theirs:
    """Steps of torch."""

    def __init__(self, work: Work, dtype: str):
        self.model = Peer(Decoder(work.config), work.params, 2, 0).model.train()
        self.work, self.kind, self.clip, self.dtype = work, work.kind, work.settings.clip, dtype
        size = work.config.d_model
        self.head = torch.nn.ModuleDict({"value": torch.nn.Linear(size, 1), "gate": torch.nn.Linear(size, 1)})
        self.weights = [*self.model.parameters(), *(self.head.parameters() if work.kind == "value" else ())]
        self.optimizer = torch.optim.AdamW(self.weights, lr=0.001, betas=(0.9, 0.98), fused=True)

    def loss(self, batch: dict[str, Any]) -> Any:
        mask, weights, targets, tokens = (batch[name] for name in ("mask", "weights", "targets", "tokens"))
        hidden = self.model.model(
            input_ids=tokens.long(),
            position_ids=batch["positions"].long(),
            attention_mask=None if mask is None else mask[:, None],
            use_cache=False,
        ).last_hidden_state
        logits = self.model.lm_head(hidden).float()
        if self.kind == "language":
            nats = functional.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="none")
            return (nats * weights.flatten()).sum() / weights.sum()
        expected = logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten().long()
        nats = functional.cross_entropy(*expected, reduction="none").view(len(tokens), -1)
        nats = functional.pad(nats, (1, 0)) * batch["written"]
        counted = functional.softplus(self.head["gate"](hidden).float().squeeze(-1)) * nats.detach()
        so_far = counted.cumsum(1) if mask is None else (mask.float() @ counted[..., None]).squeeze(-1)
        values = self.head["value"](hidden).float().squeeze(-1) - so_far
        binary = functional.binary_cross_entropy_with_logits(values, targets, weights, reduction="sum")
        return (binary + LANGUAGE * nats.sum()) / weights.sum()

    def step(self, batch: dict[str, Any]) -> int:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
            loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return int((batch["segments"] > 0).sum())

    def rate(self, feed: Iterator[dict[str, Any]]) -> float:
        made = list(itertools.islice(feed, self.work.warm + self.work.steps))  # making batches is not timed
        for batch in made[: self.work.warm]:
            self.step(batch)
        begun = time.perf_counter()
        return sum(map(self.step, made[self.work.warm :])) / (time.perf_counter() - begun)


def compare(work: Work, dtypes: Sequence[str], large: bool, rounds: int) -> None:
    """Prints the figures of one kind of step.

    Args:
      large: whether the model is; then rows are tried as configured alone, and not with Muon, which takes three
        quarters of a minute a step.
      rounds: that all ways take turns in.
    """
    longer, sizes = ((), (2,)) if large else ((2, 4), (8, 16))  # rows here, so many times as long; padded batches there
    theirs = {dtype: Theirs(work, dtype) for dtype in dtypes}
    ways: dict[tuple[str, str], Callable[[], float]] = {}
    for dtype, peer in theirs.items():
        ways[SAME, dtype] = functools.partial(ours, work, dtype)
        ways[PACKED, dtype] = functools.partial(peer.rate, packed(work))
        for n in longer:
            ways[LONGER, f"{dtype}, {n} times"] = functools.partial(ours, work, dtype, times=n)
        for n in sizes:
            ways[PADDED, f"{dtype}, batches of {n}"] = functools.partial(peer.rate, padded(work, n))
        if not large:
            ways[MUON, dtype] = functools.partial(ours, work, dtype, "muon")
    found: dict[tuple[str, str], list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    rates = {name: statistics.median(mine) for name, mine in found.items()}

    def best(*kinds: str) -> float:
        return max(rate for (kind, _), rate in rates.items() if kind in kinds)

    shown: dict[str, dict[str, int]] = {}
    for (kind, name), rate in rates.items():
        shown.setdefault(kind, {})[name] = round(rate)
    print(json.dumps({"step": work.kind, "tokens_per_second": shown}))
    ratio = {"the same rows": best(SAME) / best(PACKED), "each at its best": best(SAME, LONGER) / best(PACKED, PADDED)}
    shares = {name: round(value, 2) for name, value in ratio.items()}
    print(json.dumps({"step": work.kind, "ratio": shares}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="a finished run")
    parser.add_argument("--large", action="store_true", help="134 million parameters, random")
    parser.add_argument("--step", choices=("language", "value"), help="only this kind")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="that layers compute in")
    parser.add_argument("--rounds", type=int, default=3, help="that all ways take turns in")
    options = parser.parse_args()
    torch.set_num_threads(2)
    defaults: Any = configuration.load(str(Path(__file__).parents[1] / "configs" / "arithmetic.py"))
    if options.large:
        defaults.devices = 1  # two would sum 134 million gradients, and each change all parameters
    cli.prepare_jax(defaults)
    config, params, examples = large() if options.large else embedded(options.workdir)
    print(json.dumps({"parameters": sum(x.size for x in jax.tree.leaves(params)), "devices": len(jax.devices())}))
    for kind, group in (("language", defaults.sft), ("value", defaults.orm)):
        if options.step in (None, kind):
            settings = group.train
            if options.large:
                settings.update({"rows": 2, "row_length": 512})
            fit = [example for example in examples[kind] if len(example) <= settings.row_length]  # as stages do
            work = Work(kind, config, params, fit, settings, *((2, 3) if options.large else (4, 8)))
            compare(work, options.dtypes, options.large, options.rounds)


if __name__ == "__main__":
    main()
