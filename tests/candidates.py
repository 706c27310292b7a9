"""Small test walks, built by hand: a solution is its final answer, its first false step and its values."""

from __future__ import annotations

from collections.abc import Sequence

from glore_jax.records import Candidate, Case, Problem, Solution


def build_candidate(
    answer: int = 1,
    first_false: int | None = -1,
    orm: Sequence[float] = (0.9, 0.9),
    sorm: Sequence[float] | None = None,
    right: bool | None = None,
    text: str | None = None,
) -> Candidate:
    """A solution of as many steps as it has ORM values; right if its answer is 1."""
    sorm = orm if sorm is None else sorm
    steps = len(orm)
    lines = [f"step {i}" for i in range(steps - 1)] + [f"#### {answer}"]
    solution = Solution(
        id="s",
        problem_id="p",
        tokens=tuple(range(steps)),
        step_ends=tuple(range(1, steps + 1)),
        text="\n".join(lines) if text is None else text,
        right=answer == 1 if right is None else right,
    )
    values = {"orm": tuple(orm), "orm_balanced": tuple(orm), "sorm": tuple(sorm)}
    return Candidate(solution, first_false, values)


def build_case(
    draft: Candidate,
    globally: Candidate | None = None,
    locally: Candidate | None = None,
    samples: Sequence[Candidate] = (),
    located: int = -1,
    question: str = "",
    **others: Candidate,
) -> Case:
    """A case whose refiners repeat the draft unless told otherwise."""
    problem = Problem(id=f"test-{question}", question=question or str(id(draft)), answer="1", solution="a\nb\n#### 1")
    refinements = {"global": globally or draft, "local": locally or draft, **others}
    return Case(problem, located, sft=draft, draft=draft, samples=tuple(samples), refinements=refinements)
