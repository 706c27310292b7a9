"""Which traces are labelled, and what the SORM learns of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import handmade
import pytest
import test_faults as toys

from glore_jax import files, pipeline
from glore_jax.records import Rollout, Solution, StepLabels
from glore_jax.stages import verifiers
from glore_jax.stages.step_labels import select


def trace(problem: str, tokens: tuple[int, ...], right: bool, steps: int = 2) -> Solution:
    return Solution(f"{problem}/{tokens}", problem, tokens, tuple(range(1, steps + 1)), "a\nb", right)


def test_the_first_different_traces_of_the_named_problems_are_labelled():
    wrong, again, other = trace("p", (1, 2), False), trace("p", (1, 2), False), trace("p", (1, 3), False)
    right, short, elsewhere = trace("p", (1, 4), True), trace("p", (5,), False, steps=1), trace("q", (1, 2), False)
    traces = [short, wrong, again, right, other, elsewhere]
    assert select(traces, {"p"}, wrong=2, right=1, solved_only=False) == [wrong, right, other]
    assert select(traces, {"p", "q"}, wrong=1, right=0, solved_only=False) == [wrong, elsewhere]
    assert select(traces, {"p", "q"}, wrong=1, right=0, solved_only=True) == [wrong]  # nothing is right on q
    assert select(traces, set(), wrong=1, right=1, solved_only=False) == []


@pytest.mark.parametrize(("target", "learnt"), [("any", [1, 0]), ("share", [0.5, 0]), ("ratio", [1, 0])])
def test_the_sorm_learns_what_its_target_makes_of_the_rollouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, learnt: list[float]
):
    trace = toys.gold(toys.PROBLEMS[0], right=False)
    last = trace.num_steps
    mine = [handmade.rollout(i, ["#### 1"], i == 1 and k == 0, k, trace.id) for i in range(1, last) for k in (0, 1)]
    samples = [trace, toys.gold(toys.PROBLEMS[0], sample=1)]  # half of the question's traces are right

    def write_labels(folder: Path) -> None:
        (folder / "rollouts").mkdir()
        files.write_table(folder / "rollouts" / "part-00000.parquet", mine, Rollout)
        files.write_table(folder / "traces.parquet", [trace], Solution)
        labels = (1, -1, *[0] * (last - 2))  # balancing dropped the second
        files.write_table(folder / "balanced.parquet", [StepLabels(trace.id, labels)], StepLabels)

    class Handed(Exception):
        """The examples came to the trainer."""

    def train(context: Any, model: Any, params: Any, loss: Any, examples: Any, *_: Any) -> None:
        (example,) = examples
        assert example.targets[example.weights > 0].tolist() == [learnt[0], *[learnt[1]] * (last - 2)]
        raise Handed

    monkeypatch.setattr(verifiers.artifacts, "train", train)
    chain = [
        toys.given("problems", (), toys.write_problems),
        toys.given("base", (), toys.write_base),
        toys.given("expert_iteration", (), toys.write_base),
        toys.given("traces", (), lambda folder: files.write_table(folder / "traces.parquet", samples, Solution)),
        toys.given("labels", (), write_labels),
        toys.STAGES["sorm"],
    ]
    with pytest.raises(Handed):
        pipeline.run(toys.small_config(sorm__target=target, labels__consistency="off"), tmp_path, chain)
