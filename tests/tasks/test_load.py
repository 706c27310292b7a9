"""Tasks by name, and their oracles."""

from __future__ import annotations

import pytest
from handmade import EVEN_WEIGHTS
from ml_collections import ConfigDict

from glore_jax import tasks
from glore_jax.errors import InputError
from glore_jax.tasks import arithmetic


def arithmetic_task(**changes) -> ConfigDict:
    sizes = {"name": "arithmetic", "seed": 3, "train": 6, "dev": 3, "test": 2, "step_weights": EVEN_WEIGHTS}
    return ConfigDict(sizes | changes)


def test_the_arithmetic_task_has_as_many_problems_as_asked_for():
    splits = tasks.load(arithmetic_task())
    assert [p.id for p in splits.train] == [f"train-{i}" for i in range(6)]
    assert [p.id for p in splits.dev] == ["dev-0", "dev-1", "dev-2"]
    assert [p.id for p in splits.test] == ["test-0", "test-1"]


def test_a_problem_does_not_depend_on_how_many_are_made():
    few, many = tasks.load(arithmetic_task()), tasks.load(arithmetic_task(train=20, dev=1, test=9))
    assert many.train[:6] == few.train
    assert many.dev == few.dev[:1]
    assert many.test[:2] == few.test


@pytest.mark.parametrize("weights", [(), (1,) * 6, (1,) * 8, (0,) * 7])
def test_unfit_step_weights_are_refused(weights: tuple[int, ...]):
    with pytest.raises(InputError, match=r"task\.step_weights.*expected 7 weights, of 2 to 8 steps"):
        tasks.load(arithmetic_task(step_weights=weights))


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(
        InputError, match=r"task\.name='algebra': unknown task; there are arithmetic, jsonl, gsm8k and svamp"
    ):
        tasks.load(ConfigDict({"name": "algebra"}))


def test_only_the_embedded_task_has_an_oracle():
    assert tasks.oracle("arithmetic") is arithmetic.first_false_step
    assert tasks.oracle("jsonl") is None
