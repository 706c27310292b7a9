"""Bad steps: the training stops and says what it was at, or leaves the update out and counts it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.parallel import programs
from glore_jax.training import batches, bookkeeping, loop, losses, resuming

pytestmark = pytest.mark.usefixtures("standard_promotion")

EXAMPLES = [batches.language_example([s], [*range(s + 1, s + 6), tiny.EOS], id=f"train-{s}") for s in range(3, 27)]
POISON = 40  # a token; the loss of a batch with it is what a test says
SETTINGS = tiny.training(checkpoint_seconds=-1)


def poisoned(at: int) -> list[batches.Example]:
    """Examples, one of which is only in the batch of a step, in the first epoch, and holds the poison."""
    victim = batches.members(EXAMPLES, SETTINGS.row_length, SETTINGS.rows, 0, at - 1)[0]
    sick = batches.language_example([POISON], [*range(4, 9), tiny.EOS], id="sick")
    return [sick if e.id == victim else e for e in EXAMPLES]


def loss_of(value: float) -> Any:
    def loss(model: Any, params: Any, batch: Any) -> Any:
        total, sums = losses.language(model, params, batch)
        sick = jnp.any(batch["tokens"] == POISON)
        return total * jnp.where(sick, value, 1.0), sums

    return loss


def train(folder: Path | None, examples: list[batches.Example], loss: Any, **options: Any) -> loop.Trained:
    model, params = tiny.random_decoder()
    settings = tiny.training(**({"checkpoint_seconds": -1} | options))
    return loop.train(model, {"decoder": params}, loss, examples, settings, 0, folder)


def test_a_batch_has_its_examples_names():
    """The ids are of the very examples whose tokens the batch holds, in any epoch."""
    for number, batch in zip(range(15), batches.epochs(EXAMPLES, 16, 2, seed=1), strict=False):
        starts = batch["tokens"][(batch["positions"] == 0) & (batch["segments"] > 0)]
        assert [f"train-{s}" for s in starts] == batches.members(EXAMPLES, 16, 2, 1, number)
    nameless = [batches.language_example([5], [6]), batches.language_example([7], [8], id="a")]
    assert sorted(batches.members(nameless, 16, 1, 0, 0)) == ["#0", "a"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 100.0])
def test_a_bad_step_stops_the_training_with_all_there_is_to_know(tmp_path: Path, value: float):
    examples = poisoned(at=3)
    ids = batches.members(examples, SETTINGS.row_length, SETTINGS.rows, 0, 2)
    assert "sick" in ids
    with pytest.raises(InputError) as error:
        train(tmp_path, examples, loss_of(value))
    assert f" at step 3 of 6; its batch holds the examples {'; '.join(ids)}; " in str(error.value)
    assert f"the last good checkpoint is {tmp_path / '2'}; lower train.learning_rate" in str(error.value)
    assert "train.on_bad_step=skip" in str(error.value)
    assert resuming.reached(tmp_path) == 2  # the bad state is not kept
    with pytest.raises(InputError, match="there is no checkpoint before it"):
        train(None, examples, loss_of(value))


@pytest.mark.parametrize("value", [math.nan, 100.0])
def test_a_bad_update_is_left_out_and_counted_cut_or_not(tmp_path: Path, value: float):
    examples = poisoned(at=3)
    uncut = train(None, examples, loss_of(value), on_bad_step="skip")
    assert uncut.skipped == 1
    assert [point["step"] for point in uncut.curve] == [1, 2, 4, 5, 6]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(uncut.params)))
    model, params = tiny.random_decoder()
    settings = tiny.training(on_bad_step="skip", checkpoint_seconds=-1)
    call = (model, {"decoder": params}, loss_of(value), examples, settings, 0, tmp_path)
    with pytest.raises(tiny.Cut):
        loop.train(*call, tiny.cut_at(4))
    resumed = loop.train(*call)
    assert (resumed.curve, resumed.skipped) == (uncut.curve, 1)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, uncut.params)


def test_a_skipped_update_changes_nothing_but_the_count(monkeypatch: pytest.MonkeyPatch):
    """The training with the bad step left out is that of the other steps, with the data where it was."""
    # Two programs, equal to the bit as users have them compiled; tests otherwise are without these (`conftest.py`).
    monkeypatch.setattr(programs, "options", lambda device: {"xla_cpu_use_fusion_emitters": True})
    log = {p["step"]: p for p in train(None, poisoned(at=6), loss_of(math.nan), on_bad_step="skip").curve}
    same = {p["step"]: p for p in train(None, poisoned(at=6), losses.language).curve}
    assert log == {step: point for step, point in same.items() if step < 6}


def test_updates_left_out_again_and_again_stop_the_training():
    sick = [batches.language_example([POISON], [5, 6]) for _ in range(4)]
    with pytest.raises(InputError, match=r"the loss is nan .*, the 10th bad step in a row at step 10 of 20; "):
        train(None, sick, loss_of(math.nan), on_bad_step="skip", steps=20)


def test_the_limit_is_of_the_first_loss_but_not_below_that_of_one_nat():
    log = bookkeeping.Books(6, False, lambda number: "", {})
    assert log.limit == math.inf
    for first, limit in ((3.0, 30.0), (0.01, 10.0)):
        assert bookkeeping.Books(6, False, lambda number: "", {"first_loss": first}).limit == limit


def test_an_unknown_policy_is_refused():
    with pytest.raises(InputError, match=r"sft\.train\.on_bad_step='go': expected one of stop, skip"):
        bookkeeping.check_policy("sft.train", "go")
