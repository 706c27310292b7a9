"""What a run would take, from its configuration: counted on problems and shapes, before anything is computed.

Weights are not read, and no array of the model is made (`jax.eval_shape`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import rich
from rich.table import Table

from glore_jax import rankers, tasks
from glore_jax.errors import InputError
from glore_jax.method import expert_iteration as ei
from glore_jax.method import labels as labelling
from glore_jax.method import soft_labels, verifying
from glore_jax.models import decoder, value_head
from glore_jax.models.decoder import Decoder, DecoderConfig
from glore_jax.parallel import placement, programs
from glore_jax.parallel.placement import Placement
from glore_jax.progress import number, say, size
from glore_jax.records import Problem
from glore_jax.sampling import memory as sampling_memory
from glore_jax.sampling import precision
from glore_jax.sampling import programs as sampling_programs
from glore_jax.stages import artifacts, config_keys, counting, taking_base
from glore_jax.text import formats
from glore_jax.text.tokenizers import Tokenizer
from glore_jax.training import adaptation, beginning, bookkeeping, dev, optimizer, resuming
from glore_jax.training.batches import Example
from glore_jax.training.footprint import footprint

_LARGE = 10**8  # parameters, from which on a run says what it takes before it begins


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run takes.

    Attributes:
      model: of every stage, as the stage `base` writes it.
      parameters: numbers in it.
      problems: by split.
      too_long: worked solutions that are longer than a row of `sft.train`, and are left out.
      rollouts: verifying traces of the stage `labels`, at most.
      learning: parameters that learn in each training with a LoRA adapter, by the key of its settings.
      training, sampling: bytes on each device, by what they are for.
    """

    model: DecoderConfig
    parameters: int
    problems: dict[str, int]
    too_long: int
    work: list[counting.Work]
    rollouts: int
    learning: dict[str, int]
    training: dict[str, int]
    sampling: dict[str, int]


def check(config: Any) -> None:
    """Prints the plan of a run.

    Raises:
      InputError: see `plan`.
    """
    made = plan(config)
    say(f"problems: {', '.join(f'{name} {number(count)}' for name, count in made.problems.items())}")
    say(f"model: {number(made.parameters)} parameters, a vocabulary of {number(made.model.vocab_size)}")
    for name, count in made.learning.items():
        say(f"{name}: {number(count)} parameters learn (LoRA), the others stay")
    _print_memory(made.training, made.sampling)
    if made.too_long:
        say(f"{number(made.too_long)} worked solutions are longer than a row of sft.train and will be left out")
    table = Table("stage", "samples", "tokens written", "steps", "tokens trained on", "sources", title="at most")
    for work in made.work:
        table.add_row(work.stage, *(number(count) if count else "" for count in dataclasses.astuple(work)[1:]))
    rich.get_console().print(table)
    say(f"rollouts: {number(made.rollouts)} at most")


def announce(config: Any) -> None:
    """Says what a run takes on each device where models are large or split, before anything is made there.

    Raises:
      InputError: a model that cannot be split so, or a device with too little memory.
    """
    if config.get("recipe", "") != "glore":
        return
    tokenizer = taking_base.tokenizer_of(config)
    params = _shapes(model := taking_base.describe(config, tokenizer))
    _, training, sampling = _memory(config, model, params, tokenizer)
    if _numbers(params) >= _LARGE or ("sharding" in config and config.sharding.preset != "replicated"):
        _print_memory(training, sampling)


def _shapes(model: DecoderConfig) -> Any:
    return jax.eval_shape(lambda key: decoder.init(Decoder(model), key), jax.random.key(0))


def _numbers(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def _memory(
    config: Any, model: DecoderConfig, params: Any, tokenizer: Tokenizer
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """What learns in trainings with an adapter, and the bytes on each device of training and of sampling."""
    sharding = config.get("sharding")
    learning, training = _training_memory(config, model, params, tokenizer, placement.make(sharding))
    sampling = _sampling_memory(config, model, params, _of_samplers(config))
    _check_memory(training, sampling)
    return learning, training, sampling


def _print_memory(training: dict[str, int], sampling: dict[str, int]) -> None:
    say("memory on each device, activations aside:")
    table = Table("", "training", "sampling")
    for part in dict.fromkeys([*training, *sampling]):
        table.add_row(part, *(size(parts[part]) if part in parts else "" for parts in (training, sampling)))
    table.add_row("together", *(size(sum(parts.values())) for parts in (training, sampling)))
    rich.get_console().print(table)


def plan(config: Any) -> Plan:
    """Counts what a run takes.

    Raises:
      InputError: what the stages themselves would refuse, as far as it can be told beforehand: keys, files and
        folders, rows that do not divide by the devices, questions or prompts that do not fit, sequences longer than
        the model was made for, a device with too little memory.
    """
    if config.get("recipe", "") != "glore":
        raise InputError(f"recipe={config.get('recipe', '')!r}: `glore check` counts runs of the recipe glore only")
    check_settings(config)
    tokenizer = taking_base.tokenizer_of(config)
    model = taking_base.describe(config, tokenizer)
    splits = tasks.load(config.task)
    rows = {name: getattr(splits, name) for name in artifacts.SPLITS}
    longest = taking_base.check_questions(config.sampling, tokenizer, [p for split in rows.values() for p in split])
    _check_lengths(config, model, longest)
    examples = ei.gold_examples(tokenizer, rows["train"], model.prefix_lm)
    kept = [e for e in examples if len(e) <= config.sft.train.row_length]
    if examples and not kept:
        raise InputError(f"sft: all {len(examples)} worked solutions are longer than a row; raise sft.train.row_length")
    given = _given(config, rows, kept, longest)
    params = _shapes(model)
    memory = _memory(config, model, params, tokenizer)
    work, rollouts = list(counting.of_stages(config, given)), counting.rollouts(config, given)
    return Plan(model, _numbers(params), given.problems, len(examples) - len(kept), work, rollouts, *memory)


def given(config: Any) -> counting.Given:
    """What is known of a run's problems: counted on them, or assumed where they or the tokenizer are not there."""
    try:
        tokenizer = taking_base.tokenizer_of(config)
        splits = tasks.load(config.task)
    except InputError:
        return counting.assumed(config)
    rows = {name: getattr(splits, name) for name in artifacts.SPLITS}
    longest = taking_base.check_questions(config.sampling, tokenizer, [p for split in rows.values() for p in split])
    gold = ei.gold_examples(tokenizer, rows["train"], prefix_lm=False)
    return _given(config, rows, [e for e in gold if len(e) <= config.sft.train.row_length], longest)


def _given(config: Any, rows: Mapping[str, Sequence[Problem]], gold: Sequence[Example], longest: int) -> counting.Given:
    """What is known of problems that are there.

    Args:
      gold: worked solutions of train that are trained on.
      longest: tokens of the longest question.
    """
    steps = [len(formats.split_steps(p.solution)) for p in rows["train"] if p.solution]
    prefixes = sum(steps) / len(steps) - 1 if steps else counting.STEPS
    written = sum(map(len, gold))
    draft = written / len(gold) if gold else longest + config.sampling.max_new_tokens
    return counting.Given({name: len(found) for name, found in rows.items()}, prefixes, written, draft)


def _of_samplers(config: Any) -> Placement:
    """Where a sampler has its slots and sources: on the devices of its process, where the model fits these."""
    return placement.make(config.get("sharding"), sampling=True).of_process()


def _trainings(config: Any) -> dict[str, Any]:
    """The settings of each kind of training, by their key."""
    groups = {name: config[name].train for name in ("sft", "expert_iteration", "orm", "sorm", "refiner")}
    return {f"{name}.train": settings for name, settings in groups.items()}


def check_settings(config: Any) -> None:
    """Keys that must be there, whose values must be one of a few, and batches that must split over the devices.

    Raises:
      InputError: of what a stage would refuse only when its turn came.
    """
    config_keys.check(config)
    recipe, place, sampling = config.get("recipe", ""), placement.make(config.get("sharding")), _of_samplers(config)
    if recipe in ("glore", "label"):
        precision.check(config.sampling)
        for name in ("slots", "sources"):
            if name == "sources" or config.sampling.slots:  # 0: as many as there is memory for
                sampling.check_rows(f"sampling.{name}", config.sampling[name])
        labelling.check_reading(config.labels.consistency)
        verifying.check(config.labels)
    if recipe == "glore":
        for name, settings in _trainings(config).items():
            beginning.check(name, settings, place)
            optimizer.make(settings, 1)
            bookkeeping.check_policy(name, settings.on_bad_step)
            dev.check(name, settings)
            resuming.check(name, settings)
            if not settings.steps and settings.epochs <= 0:
                raise InputError(f"{name}: steps and epochs are both 0; set one of them")
        artifacts.start_of(config.value, "value")
        artifacts.start_of(config.refiner, "refiner")
        soft_labels.check_target(config.sorm.target)
        rankers.check(config.evaluation.ranker)


def _check_lengths(config: Any, model: DecoderConfig, longest: int) -> None:
    """Rows hold the longest prompt of their training, and no sequence is longer than the model was made for."""
    buckets = sorted(config.sampling.buckets)
    question = next(bucket for bucket in buckets if bucket >= longest)
    for name, settings in _trainings(config).items():
        prompt = buckets[-1] if name == "refiner.train" else question
        if settings.row_length <= prompt:
            raise InputError(
                f"{name}.row_length={settings.row_length}: no room for what is written after a prompt of the bucket "
                f"{prompt}; make it {prompt + config.sampling.max_new_tokens}, or sampling.buckets smaller"
            )
    lengths = {f"{name}.row_length": settings.row_length for name, settings in _trainings(config).items()}
    lengths["sampling.buckets and max_new_tokens"] = buckets[-1] + config.sampling.max_new_tokens
    for name, length in lengths.items():
        if model.max_positions and length > model.max_positions:
            raise InputError(f"{name}: {length} tokens, and the model was made for {model.max_positions}; lower it")


def _training_memory(
    config: Any, model: DecoderConfig, params: Any, tokenizer: Tokenizer, place: Placement
) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters that learn in each training with an adapter, and the bytes of the largest training."""
    learning, memory = {}, []
    computing = Decoder(dataclasses.replace(model, dtype=config.train_dtype))
    for name, settings in _trainings(config).items():
        start = _start(config, name, model, params)
        memory.append(footprint(computing, start, settings, place, tokenizer.new_marks, name))
        if lora := adaptation.config_of(settings, params, name):
            split = functools.partial(adaptation.split, config=lora, marks=tokenizer.new_marks)
            learning[name] = _numbers(jax.eval_shape(split, start, rng=jax.random.key(0))[0])
    return learning, max(memory, key=lambda parts: sum(parts.values()))


def _start(config: Any, name: str, model: DecoderConfig, params: Any) -> dict[str, Any]:
    """Shapes of the parameters that a training starts from."""
    if name not in ("orm.train", "sorm.train"):
        return {"decoder": params}
    head = functools.partial(value_head.init, d_model=model.d_model, surprise=config.value.surprise)
    return {"decoder": params, "value_head": jax.eval_shape(head, jax.random.key(0))}


def _sampling_memory(config: Any, model: DecoderConfig, params: Any, place: Placement) -> dict[str, int]:
    """On each device; where the run is to find the number of slots, what one of them takes."""
    place, settings = place.keeping("positions"), config.sampling
    model = dataclasses.replace(model, dtype=settings.dtype)
    slots = settings.slots or place.parts("batch")
    weights = programs.bytes_of(sampling_programs.params(Decoder(model), params, settings, place))
    return {"parameters": weights} | sampling_memory.taken(model, settings, slots, place)


def _check_memory(training: dict[str, int], sampling: dict[str, int]) -> None:
    """Compares with what the device says that it has; a CPU says nothing."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    for name, parts in (("training", training), ("sampling", sampling)):
        if limit and sum(parts.values()) > limit:
            raise InputError(
                f"{name} takes {size(sum(parts.values()))} on each device at least, which has {size(limit)}; take a "
                "smaller base model, fewer rows or sampling.slots, or devices with more memory"
            )
