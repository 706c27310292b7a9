"""Stages from the problems to the student and its traces."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

from glore_jax import files, tasks
from glore_jax.errors import InputError
from glore_jax.method import expert_iteration as ei
from glore_jax.parallel import hosts
from glore_jax.pipeline import StageContext
from glore_jax.records import Problem, Solution
from glore_jax.sampling import solutions
from glore_jax.sampling.engine import Engine
from glore_jax.stages import artifacts
from glore_jax.text.tokenizers import Tokenizer
from glore_jax.training import losses


def problems(context: StageContext) -> dict[str, Any]:
    """Writes the splits."""
    splits = tasks.load(context.config.task)
    counts = {}
    for name in artifacts.SPLITS:
        rows = getattr(splits, name)
        files.write_table(context.folder / f"{name}.parquet", rows, Problem)
        counts[name] = len(rows)
    return counts


def accuracy(found: list[Solution]) -> float:
    return float(np.mean([s.right for s in found]))


def greedy(context: StageContext, engine: Engine, tokenizer: Tokenizer, rows: list[Problem], label: str):
    """Greedy solutions with progress; returns them and the meter."""
    with artifacts.sampling(context, len(rows), "solutions", label) as (meter, journal):
        return solutions.sample(engine, tokenizer, rows, 1, 0.0, context.key("greedy"), meter, journal), meter


def sft(context: StageContext) -> dict[str, Any]:
    """Supervised start: worked solutions of train, from the base model."""
    tokenizer = artifacts.read_tokenizer(context)
    model, params = artifacts.read_model(context.input("base"), context.config.train_dtype, context.placement)
    examples = ei.gold_examples(tokenizer, artifacts.read_problems(context, "train"), model.config.prefix_lm)
    counts: dict[str, Any] = {"examples": 0}
    if examples:
        settings = context.config.sft.train
        trained, counts = artifacts.train(context, model, params, losses.language, examples, settings, tokenizer)
        artifacts.write_trained(context.folder, trained, model.config)
        params = trained.params
    else:  # problems without worked solutions: the base model itself is the first student
        artifacts.write_model(context.folder, params, model.config)
        artifacts.write_json(context.folder / artifacts.CURVE, [])
    engine = artifacts.make_engine(context, model, params["decoder"], tokenizer)
    found, meter = greedy(context, engine, tokenizer, artifacts.read_problems(context, "dev"), "dev drafts")
    return counts | {"dev_accuracy": accuracy(found), "sampled_tokens_per_second": meter.rate()}


def expert_iteration(context: StageContext) -> dict[str, Any]:
    """Rounds of sampling, keeping what is right and training anew; the round best on dev is the student."""
    settings = context.config.expert_iteration
    tokenizer = artifacts.read_tokenizer(context)
    train_rows, dev = artifacts.read_problems(context, "train"), artifacts.read_problems(context, "dev")
    first, first_params = artifacts.read_model(context.input("sft"), "float32", context.sampling_placement.of_process())
    engine = artifacts.make_engine(context, first, first_params["decoder"], tokenizer)
    found, _ = greedy(context, engine, tokenizer, dev, "dev drafts of the supervised student")
    history = [accuracy(found)]
    kept: list[Solution] = []
    counts: dict[str, Any] = {}
    for number in range(1, settings.rounds + 1):
        folder = context.folder / f"round{number}"
        if not hosts.of_lead(folder.name, (folder / "round.json").exists):
            _round(context, folder, number, engine, tokenizer, train_rows, dev, kept)
            hosts.barrier(f"end of {folder.name}")
        kept = files.read_table(folder / "kept.parquet", Solution)
        counts = files.read_json(folder / "round.json")
        history.append(counts["dev_accuracy"])
        model, params = artifacts.read_model(folder, "float32", context.sampling_placement.of_process())
        engine = artifacts.make_engine(context, model, params["decoder"], tokenizer)
        if history[-1] <= max(history[:-1]):
            break
    best = max(range(len(history)), key=history.__getitem__)  # 0 is the supervised student
    counts |= {"rounds": len(history) - 1, "best_round": best, "dev_accuracy": history[best]}
    if not hosts.lead():
        return counts
    chosen = context.folder / f"round{best}" if best else context.input("sft")
    artifacts.copy_model(chosen, context.folder)
    files.write_json(context.folder / artifacts.CURVE, files.read_json(chosen / artifacts.CURVE))
    artifacts.copy_adapter(chosen, context.folder)
    files.write_json(context.folder / "history.json", history)
    return counts


def _round(context, folder, number, engine, tokenizer, train_rows, dev, kept) -> None:
    settings = context.config.expert_iteration
    total = len(train_rows) * settings.samples
    with artifacts.sampling(context, total, "samples", f"round {number}, samples of train") as (meter, journal):
        key, temperature = context.key(f"round{number}"), context.config.sampling.temperature
        samples = solutions.sample(engine, tokenizer, train_rows, settings.samples, temperature, key, meter, journal)
    rate = accuracy(samples)
    if rate == 0:
        raise InputError(
            f"the student is never right on train: pass rate 0 in {len(samples)} samples; "
            "give worked solutions, easier problems (task.step_weights), more sft.train.epochs or a better base.path"
        )
    kept = ei.keep_right(train_rows, samples, kept)
    model, params = artifacts.read_model(context.input("base"), context.config.train_dtype, context.placement)
    both_ways = model.config.prefix_lm
    examples = ei.gold_examples(tokenizer, train_rows, both_ways)
    examples += ei.student_examples(tokenizer, train_rows, kept, both_ways)
    trained, counts = artifacts.train(
        context, model, params, losses.language, examples, settings.train, tokenizer, f"round {number}"
    )
    student = artifacts.make_engine(context, model, trained.params["decoder"], tokenizer)
    found, _ = greedy(context, student, tokenizer, dev, f"round {number}, dev drafts")
    counts |= {"train_pass_rate": rate, "kept": len(kept), "dev_accuracy": accuracy(found)}
    counts |= {"sampled_tokens_per_second": meter.rate()}
    context.log(f"round {number}: {len(kept)} right solutions kept, dev accuracy {counts['dev_accuracy']:.3f}")
    artifacts.write_trained(folder, trained, model.config)
    artifacts.write_table(folder / "kept.parquet", kept, Solution)
    artifacts.write_json(folder / "round.json", counts)


def traces(context: StageContext) -> dict[str, Any]:
    """The student's own traces of the train problems, with their final labels."""
    tokenizer = artifacts.read_tokenizer(context)
    engine = artifacts.read_engine(context, "expert_iteration", tokenizer)
    rows, count = artifacts.read_problems(context, "train"), context.config.traces.per_problem
    with artifacts.sampling(context, len(rows) * count, "traces", "samples of train") as (meter, journal):
        temperature = context.config.sampling.temperature
        found = solutions.sample(engine, tokenizer, rows, count, temperature, context.key(), meter, journal)
    artifacts.write_table(context.folder / "traces.parquet", found, Solution)
    by_problem = collections.Counter(s.problem_id for s in found if s.right)
    if not by_problem:
        raise InputError(
            f"the student is never right on train: pass rate 0 in {len(found)} traces; "
            "give easier problems, more training (sft.train, expert_iteration) or a better base.path"
        )
    return {
        "traces": len(found),
        "right": accuracy(found),
        "problems_ever_right": len(by_problem) / len(rows),
        "unfinished": sum(not s.finished for s in found),
        "sampled_tokens_per_second": meter.rate(),
    }
