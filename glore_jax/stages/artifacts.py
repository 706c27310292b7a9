"""Reading and writing what stages hand on: models, tables, curves.

All processes of a job come by here; what is written the lead writes, and the others leave it to the lead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.goodput import Clock
from glore_jax.models import adapters, families, layout, value_head
from glore_jax.models.decoder import CausalLM, Decoder, DecoderConfig
from glore_jax.parallel import hosts
from glore_jax.parallel.placement import Placement
from glore_jax.pipeline import StageContext
from glore_jax.records import Problem
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.journal import Journal
from glore_jax.text import pretrained
from glore_jax.text.tokenizers import Tokenizer
from glore_jax.training import checkpoints, dev, loop, resuming
from glore_jax.training.batches import Example
from glore_jax.training.telemetry import Telemetry

MODEL, CURVE, ADAPTER = "model.safetensors", "curve.json", "adapter"
SPLITS = ("train", "dev", "test")


def write_model(folder: Path, params: Any, config: DecoderConfig, dtype: str = "float32") -> None:
    """Every process of a job hands in the same, or its part of what is split; the lead writes. So with all below."""
    checkpoints.save_model(folder / MODEL, params, dataclasses.asdict(config), dtype)


def copy_model(source: Path, folder: Path) -> None:
    """The model of a stage into another's folder, as one that computes in float32; a tensor at a time."""
    params, config = checkpoints.unread(source / MODEL)
    checkpoints.save_model(folder / MODEL, params, {**config, "dtype": "float32"})


def write_table(path: Path, rows: Sequence[Any], cls: type) -> None:
    if hosts.lead():
        files.write_table(path, rows, cls)


def write_json(path: Path, value: Any) -> None:
    if hosts.lead():
        files.write_json(path, value)


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    if hosts.lead():
        tokenizer.save(folder)


def read_model(folder: Path, dtype: str, place: Placement | None = None) -> tuple[Decoder, Any]:
    """A model that computes in `dtype`, and its parameters `{"decoder": ..., ["value_head": ...]}`.

    Args:
      place: where the parameters shall lie; None: on the host.
    """
    path = folder / MODEL
    if place is None:
        params, config = checkpoints.load_model(path)
    else:
        lay = lambda config, shapes: layout.shardings(Decoder(DecoderConfig(**config)), shapes, place)  # noqa: E731
        params, config = checkpoints.load_parts(path, lay)
    return Decoder(DecoderConfig(**{**config, "dtype": dtype})), params


def read_tokenizer(context: StageContext) -> Tokenizer:
    return pretrained.reopen(context.input("base"))


def tokenizer_folder(model: Path) -> Path:
    """Where a model's tokenizer lies: in its folder, or in `base` beside it, where a run has that of all its models."""
    beside = model.resolve().parent / "base"
    return model if pretrained.holds(model) or not pretrained.holds(beside) else beside


def read_problems(context: StageContext, split: str) -> list[Problem]:
    return files.read_table(context.input("problems") / f"{split}.parquet", Problem)


def read_engine(context: StageContext, stage: str, tokenizer: Tokenizer) -> Engine:
    """The sampler on the model of a stage."""
    model, params = read_model(context.input(stage), "float32", context.sampling_placement.of_process())
    return make_engine(context, model, params["decoder"], tokenizer, str(context.input(stage)))


def make_engine(
    context: StageContext, model: Decoder, params: Any, tokenizer: Tokenizer, name: str = "the model in training"
) -> Engine:
    return Engine(
        model, params, context.config.sampling, tokenizer.eos, tokenizer.pad, name, placement=context.sampling_placement
    )


def start_of(settings: Any, group: str) -> str:
    """The stage whose model a training starts from, as `init` of its settings says.

    Args:
      group: of the configuration, that the settings are.
    """
    stages = {"base": "base", "student": "expert_iteration"}
    if settings.init not in stages:
        raise InputError(f"{group}.init={settings.init!r}: expected one of {', '.join(stages)}")
    return stages[settings.init]


def with_value_head(context: StageContext, params: Any, d_model: int, surprise: bool) -> Any:
    head = value_head.init(context.key("value_head"), d_model, surprise)
    return {"decoder": params["decoder"], "value_head": head}


def train(
    context: StageContext,
    model: Decoder,
    params: Any,
    loss: Any,
    examples: Sequence[Example],
    settings: Any,
    tokenizer: Tokenizer,
    name: str = "train",
) -> tuple[loop.Trained, dict[str, Any]]:
    """Trains with progress and checkpoints; returns the result and counts to print.

    Examples longer than a row are left out, and counted. Where `settings.lora` asks for an adapter, the rows of the
    tokenizer's new marks learn beside it. The parameters are used up.

    Raises:
      InputError: no example fits a row, or the model cannot have such an adapter.
    """
    kept = [e for e in examples if len(e) <= settings.row_length]
    if not kept:
        raise InputError(
            f"{context.stage.name}: all {len(examples)} examples are longer than a row of {settings.row_length} tokens "
            f"(the shortest has {min(map(len, examples), default=0)}); raise its train.row_length"
        )
    held_out: list[Example] = []
    if settings.dev_share:
        kept, held_out = dev.split(kept, settings.dev_share, context.seed)
    total = loop.steps_of(settings, kept)
    before = resuming.reached(context.checkpoint / name)
    with context.stop.held() as asked, context.progress(total, "steps", name, before) as bar:
        trained = loop.train(
            model,
            params,
            loss,
            kept,
            settings,
            context.seed,
            context.checkpoint / name,
            lambda tokens, metrics: bar.advance(1, loss=metrics.get("loss"), accuracy=metrics.get("accuracy")),
            tokenizer.new_marks,
            asked,
            watched(context, name),
            held_out,
            context.placement,
            spend=True,
        )
    last = trained.curve[-1]
    counts = {
        "examples": len(kept),
        "too_long": len(examples) - len(kept),
        "steps": total,
        "loss": round(last["loss"], 4),
        **{name: round(last[name], 4) for name in ("label_loss", "language_loss") if name in last},
        "token_accuracy": round(last["accuracy"], 4),
        "train_tokens_per_second": round(trained.tokens / max(trained.seconds, 1e-9)),
    }
    if trained.dev:
        step, loss_there = min(trained.dev, key=lambda point: point[1])
        counts |= {"held_out": len(held_out), "best_step": step, "best_dev_loss": round(loss_there, 4)}
    if settings.on_bad_step == "skip":
        counts["skipped_updates"] = trained.skipped
    return trained, counts


def watched(context: StageContext, name: str) -> Telemetry:
    """How a training of a stage is watched: in the folder of its metrics, which lies outside of its artifacts."""
    folder = context.metrics / name.replace(" ", "_") if hosts.lead() else None
    title = f"{context.workdir.name}/{context.stage.name}/{name}"
    return Telemetry(folder, title, context.clock, context.observed.wandb, context.observed.profile)


def write_trained(folder: Path, trained: loop.Trained, config: DecoderConfig) -> None:
    """The model and its curve; an adapter, which is merged into the model, also by itself where PEFT can read it."""
    write_model(folder, trained.params, config)
    adapter = hosts.whole(trained.adapter)
    write_json(folder / CURVE, trained.curve)
    if not hosts.lead():
        return
    shutil.rmtree(folder / ADAPTER, ignore_errors=True)  # of an attempt that was cut right after it
    if adapter is not None and families.has(config):
        config_of_adapter, weights = adapter
        adapters.save(config_of_adapter, weights, folder / ADAPTER, CausalLM(Decoder(config)))


def copy_adapter(source: Path, folder: Path) -> None:
    """The adapter that lies beside a model, if one does, to where the model was copied."""
    if not hosts.lead():
        return
    shutil.rmtree(folder / ADAPTER, ignore_errors=True)
    if (source / ADAPTER).is_dir():
        shutil.copytree(source / ADAPTER, folder / ADAPTER)


@contextlib.contextmanager
def sampling(context: StageContext, total: int, unit: str, label: str) -> Iterator[tuple[Meter, Journal]]:
    """Progress of a sampling, and the journal from which it goes on where it was cut.

    Args:
      label: of this sampling alone among those of the stage.
    """
    total = -(-total // hosts.count())
    journal = Journal(context.checkpoint / "samples" / label, writer=str(hosts.index()))
    with context.clock.spend("sampling"), journal, context.progress(total, unit, label + hosts.of_all()) as bar:
        yield Meter(bar, context.clock), journal


@dataclasses.dataclass
class Meter:
    """Counts what sampling makes, for rates."""

    bar: Any
    clock: Clock = dataclasses.field(default_factory=Clock)
    requests: int = 0
    tokens: int = 0

    def __call__(self, requests: int, tokens: int) -> None:
        self.requests += requests
        self.tokens += tokens
        self.clock.keep()  # the journal has it
        self.bar.advance(requests, tokens=self.tokens)

    def rate(self) -> int:
        return round(self.tokens / max(self.bar.seconds, 1e-9))
