"""The programs that a run computes, compiled before there are weights, problems or even devices.

Training steps and the sampler's programs are lowered as the stages make them, of the shapes that a configuration says.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from glore_jax.models import decoder, flops, value_head
from glore_jax.models.decoder import Decoder
from glore_jax.models.execution import Execution
from glore_jax.parallel import collectives, placement, programs, roofline
from glore_jax.parallel.collectives import Moved
from glore_jax.parallel.programs import Memory, TooLarge
from glore_jax.parallel.roofline import Roofline
from glore_jax.parallel.topologies import Chip, Slice
from glore_jax.progress import size
from glore_jax.sampling import decode
from glore_jax.sampling import memory as sampling_memory
from glore_jax.sampling import programs as sampling_programs
from glore_jax.stages import taking_base
from glore_jax.training import beginning, losses
from glore_jax.training import programs as training_programs

TRAININGS = ("sft", "expert_iteration", "orm", "sorm", "refiner")
STAGES = (*TRAININGS, "prefill", "decode")
_LENGTH = ("steps", "epochs", "learning_rate", "warmup", "weight_decay", "clip", "checkpoint_seconds", "checkpoints")


@dataclasses.dataclass(frozen=True)
class Program:
    """A stage's step, and what is known of it without its compiler.

    Attributes:
      lower: gives what JAX hands to the compiler.
      flops: of the step, on all devices together.
      tokens: that a step trains on, reads or writes.
      arguments: bytes of them on each device.
      passes: how often it reads its arguments.
      beside: bytes that stay on each device while it runs, and are none of its arguments.
    """

    stage: str
    lower: Callable[[], jax.stages.Lowered]
    flops: float
    tokens: int
    arguments: int
    passes: int = 1
    beside: int = 0


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler made of a program.

    Attributes:
      refusal: why a device has no room for it; "" where it has, and only then there is what follows.
      memory: bytes on each device.
      moved: between devices, in a step.
      roofline: the least seconds of a step; None where nobody said on which chips.
      seconds: that compiling took.
      fingerprint: see `programs.fingerprint`.
    """

    program: Program
    refusal: str
    seconds: float
    memory: Memory | None = None
    moved: Moved | None = None
    roofline: Roofline | None = None
    fingerprint: str = ""

    @property
    def tokens_per_second(self) -> float | None:
        """At most, on all devices together."""
        return self.program.tokens / self.roofline.seconds if self.roofline else None


class Run:
    """The programs of a configuration on some devices."""

    def __init__(self, config: ConfigDict, slice_: Slice | None = None, devices: Sequence[Any] | None = None):
        """Args: slice_, devices: what to compile for; None: the devices here.

        Raises:
          InputError: rows that cannot be split over them, or a base model of which nothing is known.
        """
        self.config: Any = config
        self.slice = slice_
        sharding = self.config.get("sharding")
        self.place = placement.make(sharding, devices)
        self.sampling = placement.make(sharding, devices, sampling=True).keeping("positions")
        self.model, self.marks = taking_base.planned(config)

    def kind(self, stage: str) -> str:
        """Stages of one kind have programs that differ in constants only: of the length of a training."""
        if stage not in TRAININGS:
            return stage
        settings = self.config[stage].train.to_dict()
        same = {key: value for key, value in settings.items() if key not in _LENGTH}
        return f"{'value' if stage in ('orm', 'sorm') else 'language'} {sorted(same.items())}"

    def program(self, stage: str, steps: int = 1000) -> Program:
        """Args: steps: of the training, whose schedule is compiled in."""
        if stage in TRAININGS:
            return self._training(stage, steps)
        return self._prefill() if stage == "prefill" else self._decode()

    def _training(self, stage: str, steps: int) -> Program:
        settings = self.config[stage].train
        beginning.check(f"{stage}.train", settings, self.place)
        model = dataclasses.replace(self.model, dtype=self.config.train_dtype)
        loss, params = losses.language, {"decoder": self._decoder}
        if stage in ("orm", "sorm"):
            loss = functools.partial(losses.value, language=self.config.value.language)
            head = functools.partial(value_head.init, d_model=model.d_model, surprise=self.config.value.surprise)
            params["value_head"] = jax.eval_shape(head, jax.random.key(0))
        if stage == "refiner":
            model = dataclasses.replace(model, prefix_lm=self.config.refiner.prefix_lm)
        how = loss, settings, steps, self.place, self.marks
        lower, arguments = training_programs.step(Decoder(model), params, *how)
        shape = settings.rows, settings.row_length
        return Program(stage, lower, flops.training(model, *shape), shape[0] * shape[1], arguments)

    def _prefill(self) -> Program:
        """Of sources as long as the largest bucket."""
        model, shapes, params = self._sampler
        lower = functools.partial(sampling_programs.prefill, model, shapes, params, self.sampling)
        tokens = shapes.sources * shapes.prefix_columns
        work = flops.reading(model.config, tokens, shapes.prefix_columns / 2, with_logits=False)
        beside = (
            sampling_programs.slots(model, shapes, self.sampling),
            sampling_programs.prefilled(model, shapes, self.sampling),
        )
        return Program("prefill", lower, work, tokens, programs.bytes_of(params), beside=programs.bytes_of(beside))

    def _decode(self) -> Program:
        """A chunk of decoding steps of all slots, which see the largest bucket and half of what they may write."""
        model, shapes, params = self._sampler
        lower = functools.partial(sampling_programs.decode_chunk, model, shapes, params, self.sampling)
        tokens = shapes.slots * shapes.chunk
        work = flops.reading(model.config, tokens, shapes.prefix_columns + shapes.ring / 2)
        beside = programs.bytes_of(sampling_programs.prefilled(model, shapes, self.sampling))
        held = programs.bytes_of((params, sampling_programs.slots(model, shapes, self.sampling)))
        return Program("decode", lower, work, tokens, held, shapes.chunk, beside)

    @functools.cached_property
    def _decoder(self) -> Any:
        """Shapes of the decoder's parameters, as they are read."""
        return nn.meta.unbox(decoder.shapes(Decoder(self.model)))

    @functools.cached_property
    def _sampler(self) -> tuple[Decoder, decode.Shapes, Any]:
        """The model that samples, the shapes of its slots, and its parameters."""
        settings = self.config.sampling
        model = Decoder(dataclasses.replace(self.model, dtype=settings.dtype), Execution(self.sampling))
        self.sampling.check_rows("sampling.sources", settings.sources)
        params = sampling_programs.params(model, self._decoder, settings, self.sampling)
        slots = settings.slots
        if not slots and self.slice is not None:
            room = int(sampling_memory.SHARE * (self.slice.chip.memory - programs.bytes_of(params)))
            # Where there is no room for one slot, the program of one tells what is missing.
            each = max(1, sampling_memory.most(model.config, settings, room, self.sampling))
            slots = each * self.sampling.parts("batch")
        slots = slots or sampling_memory.slots(model.config, settings, self.sampling)
        columns = max(settings.buckets), settings.max_new_tokens
        shapes = decode.Shapes(slots, 1, settings.sources, *columns, settings.chunk, 2, 0, settings.cache)
        return model, shapes, params


def compile(run: Run, program: Program, made: Callable = programs.made) -> Compiled:
    """Compiles a program for the run's devices, and reads what the compiler says of it.

    Args:
      made: gives memory and text of what is lowered: `programs.made`, or `planning.plan`.
    """
    start, chip = time.perf_counter(), run.slice.chip if run.slice else None
    if chip is not None and program.arguments + program.beside > chip.memory:
        return Compiled(program, f"arguments alone take {_held(program.arguments, program, chip)}", 0.0)
    try:
        memory, text = made(program.lower())
    except TooLarge as error:
        return Compiled(program, str(error), time.perf_counter() - start)
    seconds, moved, refusal, roof = time.perf_counter() - start, collectives.read(text), "", None
    if run.slice is not None and chip is not None:
        roof = roofline.of(chip, program.flops / run.slice.chips, memory, moved, program.passes)
        if memory.peak + program.beside > chip.memory:
            refusal = f"it takes {_held(memory.peak, program, chip)}"
    return Compiled(program, refusal, seconds, memory, moved, roof, programs.fingerprint(text))


def _held(taken: int, program: Program, chip: Chip) -> str:
    beside = f" beside {size(program.beside)} that stay" if program.beside else ""
    return f"{size(taken)}{beside}, of {size(chip.memory)}"
