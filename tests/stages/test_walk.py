"""The system answers anybody's questions: draft, where, both rewrites, and which of the three."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest
import tiny_run
from tiny_run import QUESTIONS, THRESHOLDS

from glore_jax import decisions
from glore_jax.errors import InputError
from glore_jax.method import refinement, refiners, reward_models
from glore_jax.records import Candidate, Problem, Solution
from glore_jax.sampling import solutions
from glore_jax.stages import artifacts, walk


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make(tmp_path_factory.mktemp("run") / "run")


def test_answers_are_what_the_parts_make_one_after_the_other(workdir: Path):
    context, problems = walk.of_finished(workdir), [Problem(str(n), q, "") for n, q in enumerate(QUESTIONS)]
    tokenizer, key = artifacts.read_tokenizer(context), jax.random.key(0)
    engines = {
        name: artifacts.read_engine(context, name, tokenizer)
        for name in ("expert_iteration", "global_refiner", "local_refiner")
    }
    readers = {name: artifacts.read_model(workdir / name, "float32") for name in ("orm", "sorm")}

    def scored(found: list[Solution]) -> list[Candidate]:
        by_id = {p.id: p for p in problems}
        values = {name: reward_models.score(*model, tokenizer, by_id, found) for name, model in readers.items()}
        return [Candidate(s, None, {name: values[name][n] for name in readers}) for n, s in enumerate(found)]

    def rewritten(name: str, sources: list[list[int]]) -> list[Candidate]:
        return scored(solutions.complete(engines[name], tokenizer, problems, sources, key))

    drafts = solutions.sample(engines["expert_iteration"], tokenizer, problems, 1, 0.0, key)
    first = scored(drafts)
    located = [refinement.locate(c.values["sorm"], THRESHOLDS["sorm_where"]) for c in first]
    both = (
        rewritten("global_refiner", refiners.sources(tokenizer, problems, drafts)),
        rewritten("local_refiner", refiners.sources(tokenizer, problems, drafts, located)),
    )
    chosen = [
        decisions.rerank(d, rewrites, THRESHOLDS["rank_margin"]) for d, *rewrites in zip(first, *both, strict=True)
    ]

    found = walk.answers_to(context, QUESTIONS)
    assert [c.solution.tokens for c in found] == [c.solution.tokens for c in chosen]
    assert found[1].solution.tokens == found[3].solution.tokens  # the same question
    kept = [c.solution.tokens == d.tokens for c, d in zip(found, drafts, strict=True)]
    assert any(kept) and not all(kept)
    assert [c.solution.tokens for c in walk.drafts_of(context, QUESTIONS)] == [d.tokens for d in drafts]


def test_a_run_that_is_not_finished_or_damaged_is_named(workdir: Path, tmp_path: Path):
    with pytest.raises(InputError, match="not a work folder"):
        walk.of_finished(tmp_path)
    context = walk.of_finished(workdir)
    with pytest.raises(InputError, match=r"value_refiner: the stage is not done; finish the run: glore run .*=.*/run"):
        context.input("value_refiner")
    thresholds = workdir / "tuning" / "thresholds.json"
    before = thresholds.read_text()
    thresholds.write_text(before.replace("0.5", "0.4"))
    with pytest.raises(InputError, match=r"thresholds\.json: is not the file that its stage wrote"):
        walk.answers_to(context, QUESTIONS[:1])
    thresholds.write_text(before)
