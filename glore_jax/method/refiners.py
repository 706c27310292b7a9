"""Global, local and value-conditioned refiners (paper section 3.3): their pairs, examples and use."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from glore_jax.records import Problem, RefinementPair, Rollout, Solution, StepLabels
from glore_jax.text import formats
from glore_jax.text.tokenizers import Tokenizer
from glore_jax.training.batches import Example, language_example


def _shuffled(names: Sequence[str], items: Sequence, salt: str) -> list:
    """Items in an order drawn by their names."""
    ranks = [hashlib.sha256(f"{salt}/{name}".encode()).digest() for name in names]
    return [items[i] for i in sorted(range(len(items)), key=ranks.__getitem__)]


def global_pairs(traces: Sequence[Solution], per_trace: int) -> list[RefinementPair]:
    """(wrong trace, right trace) of one question: `per_trace` targets for each wrong trace."""
    right: dict[str, list[Solution]] = defaultdict(list)
    for trace in traces:
        if trace.right and trace.finished:
            right[trace.problem_id].append(trace)
    pairs = []
    for draft in traces:
        if draft.right or not draft.num_steps:
            continue
        targets = right[draft.problem_id]
        for target in _shuffled([t.id for t in targets], targets, draft.id)[:per_trace]:
            pairs.append(RefinementPair(draft.problem_id, draft.tokens, draft.step_ends, target.tokens))
    return pairs


def local_pairs(
    traces: Sequence[Solution],
    labels: Sequence[StepLabels],
    rollouts: Mapping[str, Sequence[Rollout]],
    samples: Sequence[Solution],
    per_trace: int,
) -> list[RefinementPair]:
    """Pairs around the first wrong step: draft a wrong rollout from P_(i+1), target a right one from P_i.

    P_i is positive and P_(i+1) negative, so E = i + 1 (counted from 1; `error` counts from 0 and is
    i). Draft and target share P_i. The rollouts of P_0 are the student's other traces of the
    question; the one rollout of a whole trace P_L is the trace itself.

    Args:
      traces, labels: what was labelled; labels before balancing (every step has one).
      rollouts: by trace id.
      samples: all traces of the student.
      per_trace: most pairs from one trace.
    """
    by_problem: dict[str, list[Solution]] = defaultdict(list)
    for sample in samples:
        by_problem[sample.problem_id].append(sample)
    pairs = []
    for trace, entry in zip(traces, labels, strict=True):
        i = next((i for i, label in enumerate(entry.labels) if label == 0), -1)
        if i < 0 or trace.right:
            continue
        mine = rollouts.get(trace.id, ())
        cut = trace.step_ends[i]
        wrong = [
            ((*trace.tokens[:cut], *r.tokens), (*trace.step_ends[: i + 1], *(cut + e for e in r.step_ends)))
            for r in mine
            if r.prefix == i + 1 and not r.right
        ] or [(trace.tokens, trace.step_ends)]
        kept = trace.tokens[: trace.step_ends[i - 1]] if i else ()
        if i:
            right = [(*kept, *r.tokens) for r in mine if r.prefix == i and r.right]
        else:
            right = [t.tokens for t in by_problem[trace.problem_id] if t.right and t.finished]
        right = _shuffled([str(t) for t in right], right, trace.id)[:per_trace]
        wrong = _shuffled([str(w) for w in wrong], wrong, trace.id)
        for n, target in enumerate(right):
            draft, ends = wrong[n % len(wrong)]
            pairs.append(RefinementPair(trace.problem_id, draft, ends, target, error=i, shared=i))
    return pairs


def examples(
    tokenizer: Tokenizer,
    problems: Mapping[str, Problem],
    pairs: Sequence[RefinementPair],
    prefix_lm: bool,
    values: Sequence[Sequence[float]] | None = None,
) -> list[Example]:
    """Sequence-to-sequence examples: source question, draft and critique; loss on the target alone.

    Args:
      prefix_lm: whether the source attends to itself in both directions (prefix LM).
      values: step values of each draft, for the value-conditioned refiner.
    """
    out = []
    for n, pair in enumerate(pairs):
        source = formats.encode_refiner_source(
            tokenizer,
            problems[pair.problem_id].question,
            pair.draft_tokens,
            pair.draft_step_ends,
            pair.error,
            None if values is None else values[n],
        )
        out.append(
            language_example(source, pair.target_tokens, prefix_lm, f"{pair.problem_id}, pair {n}", pair.problem_id)
        )
    return out


def sources(
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    drafts: Sequence[Solution],
    errors: Sequence[int] | None = None,
    values: Sequence[Sequence[float]] | None = None,
) -> list[list[int]]:
    """What a refiner is given for each draft: with `errors` the local form, with `values` the value-conditioned one."""
    return [
        formats.encode_refiner_source(
            tokenizer,
            problem.question,
            draft.tokens,
            draft.step_ends,
            -1 if errors is None else errors[n],
            None if values is None else values[n],
        )
        for n, (problem, draft) in enumerate(zip(problems, drafts, strict=True))
    ]
