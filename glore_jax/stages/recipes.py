"""The order of the stages, by recipe."""

from __future__ import annotations

from typing import Any

from glore_jax import tasks
from glore_jax.configuration import nearest
from glore_jax.errors import InputError
from glore_jax.pipeline import Stage
from glore_jax.stages import (
    given_solutions,
    judged_traces,
    making_base,
    reports,
    rewriters,
    step_labels,
    students,
    taking_base,
    verifiers,
    walk,
)
from glore_jax.tasks import judged

_VALUES = ("orm", "orm_balanced", "sorm")
_REWRITERS = ("global_refiner", "local_refiner", "value_refiner")
_DEV_INPUTS = ("problems", "base", "expert_iteration", *_VALUES, "global_refiner", "local_refiner")
_WALK_KEYS = ("task", "sampling", "evaluation")

GLORE: tuple[Stage, ...] = (
    Stage(
        "problems",
        (),
        students.problems,
        "load the problems and split them",
        ("task",),
        outside=lambda config: tasks.files_of(config.task),
        alone=True,
    ),
    Stage(
        "base",
        ("problems",),
        taking_base.base,
        "take the base model and its tokenizer",
        ("base", "sampling"),
        outside=taking_base.files_of,
        alone=True,
    ),
    Stage(
        "sft",
        ("problems", "base"),
        students.sft,
        "train the first student on worked solutions",
        ("sft", "sampling", "train_dtype"),
    ),
    Stage(
        "expert_iteration",
        ("problems", "base", "sft"),
        students.expert_iteration,
        "train the student on its own right solutions",
        ("expert_iteration", "sampling", "train_dtype"),
    ),
    Stage(
        "traces",
        ("problems", "base", "expert_iteration"),
        students.traces,
        "sample the student's traces of train",
        ("traces", "sampling"),
    ),
    Stage(
        "labels",
        ("problems", "base", "expert_iteration", "traces"),
        step_labels.labels,
        "roll out every prefix and label the steps",
        ("labels", "sampling", "task"),
    ),
    *(
        Stage(
            name,
            ("problems", "base", "expert_iteration", *sources),
            run,
            f"train the {title}",
            ("value", *groups, "train_dtype"),
        )
        for name, sources, groups, run, title in (
            ("orm", ("traces",), ("orm",), verifiers.orm, "outcome reward model"),
            ("orm_balanced", ("traces",), ("orm",), verifiers.orm_balanced, "outcome reward model on balanced traces"),
            (
                "sorm",
                ("traces", "labels"),
                ("sorm", "labels"),
                verifiers.sorm_of_rollouts,
                "stepwise outcome reward model",
            ),
        )
    ),
    Stage(
        "global_refiner",
        ("problems", "base", "expert_iteration", "traces"),
        rewriters.global_refiner,
        "train the global refiner",
        ("refiner", "train_dtype"),
    ),
    Stage(
        "local_refiner",
        ("problems", "base", "expert_iteration", "traces", "labels"),
        rewriters.local_refiner,
        "train the local refiner",
        ("refiner", "train_dtype"),
    ),
    Stage(
        "value_refiner",
        ("problems", "base", "expert_iteration", "traces", "sorm"),
        rewriters.value_refiner,
        "train the value-conditioned refiner",
        ("refiner", "train_dtype"),
    ),
    Stage("tuning", _DEV_INPUTS, walk.tuning, "walk dev through the system and choose the thresholds", _WALK_KEYS),
    Stage(
        "test", (*_DEV_INPUTS, "sft", "value_refiner", "tuning"), walk.test, "walk test through the system", _WALK_KEYS
    ),
    Stage(
        "report",
        ("test", "tuning", "labels", "sft", "expert_iteration", *_VALUES, *_REWRITERS),
        reports.stage,
        "measure, plot and write the page",
        (),
        alone=True,
    ),
)

BASE: tuple[Stage, ...] = (
    Stage(
        "tokenizer",
        (),
        making_base.tokenizer,
        "train the tokenizer",
        ("vocabulary", "pretrain_short"),
        alone=True,
    ),
    *(
        Stage(name, inputs, making_base.pretrain, title, (name, "model", "train_dtype"))
        for name, inputs, title in (
            ("pretrain_notes", ("tokenizer",), "train on notes of statements"),
            ("pretrain_short", ("tokenizer", "pretrain_notes"), "train on short solutions"),
            ("pretrain_medium", ("tokenizer", "pretrain_short"), "train on solutions of all lengths"),
            ("pretrain_long", ("tokenizer", "pretrain_medium"), "train on solutions and rewritten solutions"),
        )
    ),
    Stage(
        "base_model",
        ("tokenizer", "pretrain_long"),
        making_base.base_model_stage,
        "write the base model",
        ("pretrain_long", "sampling", "dev"),
    ),
)

TRACES_VALUE: tuple[Stage, ...] = (
    Stage(
        "problems",
        (),
        judged_traces.problems,
        "read the judged solutions and split their questions",
        ("task",),
        outside=lambda config: judged.files_of(config.task),
        alone=True,
    ),
    Stage(
        "base",
        ("problems",),
        judged_traces.base,
        "take the base model, or make one of the good solutions of train",
        (
            *("base", "vocabulary", "model", "pretrain", "train_dtype", "value.init"),
            *("orm.train.row_length", "sorm.train.row_length"),
        ),
        outside=judged_traces.base_files,
    ),
    Stage(
        "traces",
        ("problems", "base"),
        judged_traces.traces,
        "final labels of train",
        (),
        alone=True,
    ),
    Stage(
        "labels",
        ("problems", "base"),
        judged_traces.labels,
        "step labels of train",
        ("labels",),
        alone=True,
    ),
    *(
        Stage(
            name,
            ("problems", "base", source),
            run,
            f"train the {title}",
            ("value", name, "train_dtype"),
        )
        for name, source, run, title in (
            ("orm", "traces", verifiers.orm, "outcome reward model"),
            ("sorm", "labels", verifiers.sorm, "stepwise outcome reward model"),
        )
    ),
    Stage("values", ("problems", "base", "orm", "sorm"), judged_traces.values, "read values on dev and test", ()),
    Stage(reports.MEASURES, ("problems", "values"), judged_traces.measures, "measure on test", (), alone=True),
)

LABEL: tuple[Stage, ...] = (
    Stage(
        "problems",
        (),
        given_solutions.problems,
        "read the solutions",
        ("task",),
        outside=lambda config: given_solutions.files_of(config.task),
        alone=True,
    ),
    Stage(
        "base",
        ("problems",),
        given_solutions.base,
        "take the model that continues prefixes",
        ("base", "sampling"),
        outside=taking_base.files_of,
        alone=True,
    ),
    Stage(
        "labels",
        ("problems", "base"),
        given_solutions.labels,
        "roll out prefixes and label the steps",
        ("labels", "sampling"),
    ),
    Stage(
        "export",
        ("problems", "base", "labels"),
        given_solutions.export,
        "write the labels",
        (),
        alone=True,
    ),
)

_RECIPES = {"glore": GLORE, "base": BASE, "traces_value": TRACES_VALUE, "label": LABEL}


def of(config: Any) -> tuple[Stage, ...]:
    """The stages of a configuration's `recipe`."""
    name = config.get("recipe", "")
    if name not in _RECIPES:
        raise InputError(f"recipe={name!r}: no such recipe; {nearest(name, list(_RECIPES))}")
    return _RECIPES[name]
