"""Stages that walk problems through the whole system: dev for the thresholds, then test, once. And any questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from glore_jax import decisions, files, tasks, workfolder
from glore_jax.errors import InputError
from glore_jax.evaluation import refinements
from glore_jax.interrupts import Stop
from glore_jax.method import refinement, refiners, reward_models
from glore_jax.pipeline import Stage, StageContext
from glore_jax.records import Candidate, Case, Problem, Solution
from glore_jax.sampling import solutions
from glore_jax.stages import artifacts

VALUE_MODELS = ("orm", "orm_balanced", "sorm")
REWRITE_SCORERS = ("orm", "sorm")  # the one chooses, the other colours the page; what nobody reads is not scored
REFINERS = {"global": "global_refiner", "local": "local_refiner", "value_conditioned": "value_refiner"}


class Walk:
    """The problems' way through the system. One model is in memory at a time, in parts where devices share it.

    Args:
      scorers: the value models that there are.
      oracle: of the problems, if they have one.
    """

    def __init__(
        self, context: StageContext, problems: Sequence[Problem], scorers: Sequence[str], oracle: tasks.Oracle | None
    ):
        self.context, self.problems, self.oracle = context, list(problems), oracle
        self.by_id = {p.id: p for p in problems}
        self.tokenizer = artifacts.read_tokenizer(context)
        self.scorers = tuple(scorers)
        # Samples and rewrites are often what was read before; reading it once also makes them equal to the last bit.
        self.scored: dict[str, dict[Any, tuple[float, ...]]] = {name: {} for name in scorers}
        self.rewritten: dict[Any, Solution] = {}

    def candidates(self, found: Sequence[Solution], scorers: Sequence[str]) -> list[Candidate]:
        """Judged by the oracle and scored by the value models that are named."""
        names = [(s.problem_id, s.tokens) for s in found]
        for scorer in scorers:
            known = self.scored[scorer]
            new = {name: s for name, s in zip(names, found, strict=True) if name not in known}
            if new:
                known |= zip(new, self._values(scorer, list(new.values())), strict=True)
        return [
            Candidate(
                s,
                None if self.oracle is None else self.oracle(self.by_id[s.problem_id].facts, s.steps),
                {scorer: self.scored[scorer][name] for scorer in scorers},
            )
            for name, s in zip(names, found, strict=True)
        ]

    def _values(self, scorer: str, found: Sequence[Solution]) -> list[tuple[float, ...]]:
        place = self.context.sampling_placement
        model, params = artifacts.read_model(self.context.input(scorer), "float32", place.of_process())
        return reward_models.score(model, params, self.tokenizer, self.by_id, found, place)

    def sample(self, stage: str, count: int, temperature: float, label: str, scored: int) -> list[Candidate]:
        """`count` solutions a problem, of which the value models read the first `scored`."""
        engine = artifacts.read_engine(self.context, stage, self.tokenizer)
        with artifacts.sampling(self.context, len(self.problems) * count, "solutions", label) as recorded:
            key = self.context.key(label)
            found = solutions.sample(engine, self.tokenizer, self.problems, count, temperature, key, *recorded)
        del engine  # its memory is for the value models
        read = [n % count < scored for n in range(len(found))]
        parts = {
            whether: iter(self.candidates([s for s, r in zip(found, read, strict=True) if r == whether], scorers))
            for whether, scorers in ((True, self.scorers), (False, ()))
        }
        return [next(parts[r]) for r in read]

    def refine(
        self, refiner: str, drafts: Sequence[Candidate], label: str, errors=None, values=None
    ) -> list[Candidate]:
        """A rewrite of every draft. A draft that is too long to be read with its critique stands as it is."""
        engine = artifacts.read_engine(self.context, REFINERS[refiner], self.tokenizer)
        sources = refiners.sources(self.tokenizer, self.problems, [d.solution for d in drafts], errors, values)
        fits = [n for n, source in enumerate(sources) if len(source) <= max(self.context.config.sampling.buckets)]
        if len(fits) < len(sources):
            self.context.log(f"{label}: {len(sources) - len(fits)} drafts stand, being longer than sampling.buckets")
        names = {n: (refiner, self.problems[n].id, *sources[n]) for n in fits}
        new = [n for n in fits if names[n] not in self.rewritten]
        with artifacts.sampling(self.context, len(new), "solutions", label) as recorded:
            work = [self.problems[n] for n in new], [sources[n] for n in new], self.context.key(label)
            found = solutions.complete(engine, self.tokenizer, *work, *recorded)
        del engine
        self.rewritten |= {names[n]: solution for n, solution in zip(new, found, strict=True)}
        made = dict(zip(fits, self.candidates([self.rewritten[names[n]] for n in fits], REWRITE_SCORERS), strict=True))
        return [made.get(n, draft) for n, draft in enumerate(drafts)]

    def errors_of_oracle(self, drafts: Sequence[Candidate], located: Sequence[int]) -> list[int]:
        """Where the oracle finds no false step, the verifier's location stands."""
        truth = [d.first_false for d in drafts]
        return [at if false is None or false < 0 else false for false, at in zip(truth, located, strict=True)]

    def rewrites(self, drafts: Sequence[Candidate], threshold: float) -> tuple[list[int], dict[str, list[Candidate]]]:
        """Where the SORM locates each draft's error, and both refiners' rewrites, from which the ORM chooses."""
        located = [refinement.locate(d.values["sorm"], threshold) for d in drafts]
        return located, {
            "global": self.refine("global", drafts, "global refinements"),
            "local": self.refine("local", drafts, "local refinements", errors=located),
        }

    def run(self, thresholds: dict[str, float] | None) -> tuple[list[Case], dict[str, float]]:
        """Cases of all problems; where no thresholds are given they are tuned on these very problems."""
        settings = self.context.config
        drafts = self.sample("expert_iteration", 1, 0.0, "drafts", scored=1)
        first: list[Candidate] = []  # no threshold depends on them
        if thresholds:
            first = self.sample("sft", 1, 0.0, "supervised drafts", scored=0)
        count, heat = settings.evaluation.samples, settings.sampling.temperature
        if thresholds and count:
            samples = self.sample("expert_iteration", count, heat, "samples", scored=refinements.NUM_CANDIDATES)
        else:
            count, samples = 0, []  # no threshold depends on samples
        chosen = dict(thresholds) if thresholds else refinement.value_thresholds(drafts, VALUE_MODELS)
        sorm = [d.values["sorm"] for d in drafts]
        located, made = self.rewrites(drafts, chosen["sorm_where"])
        if thresholds:  # no threshold depends on the others
            made["value_conditioned"] = self.refine("value_conditioned", drafts, "value-conditioned ones", values=sorm)
            if self.oracle is not None:
                told = self.errors_of_oracle(drafts, located)
                made["local_oracle"] = self.refine("local", drafts, "local ones, told by the oracle", errors=told)
        cases = [
            Case(
                problem=problem,
                located=decisions.first_below(sorm[n], chosen["sorm_where"]),
                sft=first[n] if first else None,
                draft=drafts[n],
                samples=tuple(samples[n * count : (n + 1) * count]),
                refinements={name: rows[n] for name, rows in made.items()},
            )
            for n, problem in enumerate(self.problems)
        ]
        if not thresholds:
            chosen |= refinement.decision_thresholds(cases, settings.evaluation.ranker)
        return cases, chosen


def _of_split(context: StageContext, split: str) -> Walk:
    oracle = tasks.oracle(context.config.task.name)
    return Walk(context, artifacts.read_problems(context, split), VALUE_MODELS, oracle)


def _counts(cases: Sequence[Case], thresholds: dict[str, float], ranker: str) -> dict[str, Any]:
    right = [c.draft.solution.right for c in cases]
    system = [decisions.system(c, thresholds["rank_margin"], ranker).solution.right for c in cases]
    return {
        "problems": len(cases),
        "draft_accuracy": sum(right) / len(cases),
        "system_accuracy": sum(system) / len(cases),
    }


def tuning(context: StageContext) -> dict[str, Any]:
    """Chooses the thresholds of WHERE and WHEN on dev."""
    cases, thresholds = _of_split(context, "dev").run(None)
    artifacts.write_table(context.folder / "cases.parquet", cases, Case)
    artifacts.write_json(context.folder / "thresholds.json", thresholds)
    counts = _counts(cases, thresholds, context.config.evaluation.ranker)
    return counts | {name: thresholds[name] for name in ("sorm_where", "gate", "rank_margin")}


def test(context: StageContext) -> dict[str, Any]:
    """The one look at the test problems."""
    thresholds = files.read_json(context.input("tuning") / "thresholds.json")
    cases, _ = _of_split(context, "test").run(thresholds)
    artifacts.write_table(context.folder / "cases.parquet", cases, Case)
    return _counts(cases, thresholds, context.config.evaluation.ranker)


def of_finished(workdir: Path) -> StageContext:
    """What a stage of a finished run would be given that reads all others; it writes nothing.

    Raises:
      InputError: it is no work folder; and, where a stage is read, it is not done or damaged.
    """
    config = ConfigDict(workfolder.read_config(workdir))

    def finished(name: str) -> Path:
        manifest = workfolder.read_manifest(workdir / name, name)
        if manifest is None:
            raise InputError(
                f"{workdir / name}: the stage is not done; finish the run: glore run --config=… --workdir={workdir}"
            )
        workfolder.verify(workdir / name, manifest, content=True)
        return workdir / name

    stage = Stage("answers", (), lambda context: {}, "answer questions", ())
    return StageContext(stage, config, workdir, workdir, False, config.seed, finished, Stop())


def answers_to(context: StageContext, questions: Sequence[str]) -> list[Candidate]:
    """The whole system's answers to anybody's questions, at the thresholds and by the ranker of the run."""
    thresholds = files.read_json(context.input("tuning") / "thresholds.json")
    walk = Walk(context, asked(questions), REWRITE_SCORERS, None)
    drafts = walk.sample("expert_iteration", 1, 0.0, "drafts", scored=1)
    _, made = walk.rewrites(drafts, thresholds["sorm_where"])
    rewrites = [[made[name][n] for name in decisions.REFINERS] for n in range(len(drafts))]
    # Work folders of before there was a choice lack the one key, tasks of numbers alone the other.
    ranker, kind = context.config.evaluation.get("ranker", "orm"), context.config.task.get("answers", "number")
    how = thresholds["rank_margin"], ranker, kind == "latex"
    return [decisions.rerank(draft, mine, *how) for draft, mine in zip(drafts, rewrites, strict=True)]


def drafts_of(context: StageContext, questions: Sequence[str]) -> list[Candidate]:
    """The student's answers, before anything is refined."""
    return Walk(context, asked(questions), (), None).sample("expert_iteration", 1, 0.0, "drafts", scored=0)


def asked(questions: Sequence[str]) -> list[Problem]:
    """Questions as problems whose answers nobody here knows."""
    return [Problem(f"question-{n}", question, answer="") for n, question in enumerate(questions)]
