"""How much a run has to do, stage by stage, from its configuration and what is known of its problems.

What depends on what the student will write is counted at most: drafts as long as `sampling.max_new_tokens`, every trace
that may be labelled wrong, and as many steps in it as a worked solution has.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from glore_jax import tasks

STEPS = 8  # of a draft, where no worked solution says how many there are


@dataclasses.dataclass(frozen=True)
class Given:
    """What is known of the problems of a run.

    Attributes:
      problems: by split.
      prefixes: of a worked solution, on average: one less than its steps.
      written: tokens of the worked solutions of train, with their questions; 0 where there are none.
      draft: tokens of a question with a draft.
      measured: whether this was counted on the problems, or is assumed.
    """

    problems: dict[str, int]
    prefixes: float
    written: int
    draft: float
    measured: bool = True


@dataclasses.dataclass(frozen=True)
class Work:
    """What a stage has to do, at most.

    Attributes:
      samples: sequences that are sampled.
      written: tokens of these.
      steps: of training, all rounds together.
      trained: tokens in the rows of these steps, padding included.
      sources: sequences that are read before others continue them.
    """

    stage: str
    samples: int = 0
    written: int = 0
    steps: int = 0
    trained: int = 0
    sources: int = 0


def assumed(config: Any) -> Given:
    """Of problems and a tokenizer that are not there: `STEPS` steps a solution, drafts as long as they may be."""
    counts = tasks.sizes(config.task)
    draft = max(config.sampling.buckets)  # the longest source of a refiner holds a question and a draft
    return Given(counts, STEPS - 1, counts["train"] * draft, draft, measured=False)


def rollouts(config: Any, given: Given) -> int:
    """Verifying traces: K from each prefix of each wrong trace (and of each right one, without propagation)."""
    settings = config.labels
    each = max(given.prefixes, 1) * (settings.rollouts + settings.boundary_rollouts)
    return math.ceil(_rolled_out(config, given) * each)


def _rolled_out(config: Any, given: Given) -> int:
    """Traces whose prefixes are continued."""
    settings = config.labels
    traces = settings.wrong_per_problem + (0 if settings.propagation else settings.right_per_problem)
    return _labelled(config, given) * min(traces, config.traces.per_problem)


def _labelled(config: Any, given: Given) -> int:
    return min(config.labels.problems or given.problems["train"], given.problems["train"])


def of_stages(config: Any, given: Given) -> Iterator[Work]:
    """The work of each stage that samples or trains."""
    c, new, draft = config, config.sampling.max_new_tokens, given.draft
    train, dev, test = (given.problems[name] for name in ("train", "dev", "test"))

    def work(
        stage: str, samples: int, sources: int = 0, settings: Any = None, tokens: float = 0, rounds: int = 1
    ) -> Work:
        if settings is None:
            return Work(stage, samples, samples * new, sources=sources)
        room = settings.rows * settings.row_length
        steps = rounds * (settings.steps or max(1, math.ceil(settings.epochs * tokens / room)))
        return Work(stage, samples, samples * new, steps, steps * room, sources)

    yield work("sft", dev, dev, c.sft.train, given.written) if given.written else work("sft", dev, dev)
    e = c.expert_iteration
    samples, sources = dev + e.rounds * (train * e.samples + dev), dev + e.rounds * (train + dev)
    yield work("expert_iteration", samples, sources, e.train, given.written + train * e.samples * draft, e.rounds)
    traces = train * c.traces.per_problem
    yield work("traces", traces, train)
    yield work("labels", rollouts(config, given), _rolled_out(config, given))
    labelled = _labelled(config, given)
    chosen = min(traces, labelled * (c.labels.wrong_per_problem + c.labels.right_per_problem))
    for name, settings, count in (("orm", c.orm, traces), ("orm_balanced", c.orm, traces), ("sorm", c.sorm, chosen)):
        yield work(name, 0, 0, settings.train, count * draft)
    wrong = labelled * c.labels.wrong_per_problem * c.refiner.local_pairs
    pairs = {"global_refiner": traces * c.refiner.global_pairs, "local_refiner": wrong}
    for name, count in (*pairs.items(), ("value_refiner", pairs["global_refiner"])):
        yield work(name, 0, 0, c.refiner.train, count * 2 * draft)
    yield work("tuning", dev * 3, dev * 3)  # the student's drafts, and two rewrites
    walks = 5 if tasks.oracle(c.task.name) is None else 6  # and those of the other rows of the table
    yield work("test", test * (walks + c.evaluation.samples), test * (walks + 1))
