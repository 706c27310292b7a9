"""What is held out of a training, and the state that is best on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.training import batches, dev, loop, losses

pytestmark = pytest.mark.usefixtures("standard_promotion")


def example(start: int, step: int) -> batches.Example:
    """Counts up or down, two examples a problem."""
    tokens = [(start + step * i) % 30 + 3 for i in range(7)]
    return batches.language_example(tokens[:1], tokens[1:], problem=f"p{start // 2}")


LEARNT, HELD_OUT = [example(s, 1) for s in range(12)], [example(s, -1) for s in range(4)]


def train(folder: Path, advance: Any = lambda tokens, metrics: None, **options: Any) -> loop.Trained:
    model, params = tiny.random_decoder()
    settings = tiny.training(**({"steps": 20, "learning_rate": 0.05, "checkpoint_seconds": 1000} | options))
    return loop.train(
        model, {"decoder": params}, losses.language, LEARNT, settings, 0, folder, advance, held_out=HELD_OUT
    )


def test_whole_problems_are_held_out_and_the_seed_draws_them():
    learnt, held_out = dev.split(LEARNT, 0.3, seed=0)
    assert len(held_out) == 4 and len(learnt) == 8  # ceil(0.3 x 6) problems of two examples
    assert not {e.problem for e in learnt} & {e.problem for e in held_out}
    assert [e.problem for e in dev.split(LEARNT, 0.3, seed=0)[1]] == [e.problem for e in held_out]
    drawn = [{e.problem for e in dev.split(LEARNT, 0.3, seed=n)[1]} for n in range(4)]
    assert any(problems != drawn[0] for problems in drawn)
    with pytest.raises(InputError, match=r"dev_share=0\.9: leaves nothing to learn from, of 6 problems"):
        dev.split(LEARNT, 0.9, seed=0)


def test_every_example_is_measured_once():
    rows = list(batches.once(LEARNT, row_length=16, batch_rows=4))
    assert {batch["tokens"].shape for batch in rows} == {(4, 16)}
    assert sum(float(batch["weights"].sum()) for batch in rows) == sum(float(e.weights.sum()) for e in LEARNT)


def test_the_best_state_is_the_result_cut_or_not(tmp_path: Path):
    best = train(tmp_path / "best", keep="best", dev_share=0.1)
    assert [step for step, _ in best.dev] == list(range(2, 21, 2))  # ten times
    step, _ = min(best.dev, key=lambda point: point[1])
    assert step < 20  # what is learnt is of no use for what is held out
    last = train(tmp_path / "last")
    assert (last.curve, last.dev) == (best.curve, best.dev)
    saved = ocp.StandardCheckpointer().restore((tmp_path / "best" / str(step) / "state").resolve())
    jax.tree.map(np.testing.assert_array_equal, best.params, saved["params"])
    assert not np.array_equal(best.params["decoder"]["embedding"], last.params["decoder"]["embedding"])
    with pytest.raises(tiny.Cut):
        train(tmp_path / "cut", tiny.cut_at(17), keep="best", dev_share=0.1)
    resumed = train(tmp_path / "cut", keep="best", dev_share=0.1)
    jax.tree.map(np.testing.assert_array_equal, best.params, resumed.params)
    assert (resumed.dev, resumed.curve) == (best.dev, best.curve)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": "first"}, "orm.train.keep='first': expected one of last, best"),
        ({"dev_share": 1.0}, "orm.train.dev_share=1.0: expected a share from 0 to below 1"),
        ({"keep": "best"}, "orm.train.keep=best: nothing to measure it on; set orm.train.dev_share, to 0.1 for"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        dev.check("orm.train", tiny.training(**changes))
