"""The stages that label steps: those of the student's own traces, and those of solutions that anybody wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from glore_jax import files, tasks
from glore_jax.errors import InputError
from glore_jax.method import label_noise, verifying
from glore_jax.method import labels as labelling
from glore_jax.parallel import hosts
from glore_jax.pipeline import StageContext
from glore_jax.records import Problem, Rollout, Solution, StepLabels
from glore_jax.sampling.journal import Journal
from glore_jax.sampling.rollouts import Rollouts
from glore_jax.stages import artifacts, rollout_parts
from glore_jax.stages.rollout_parts import RolloutParts


def select(
    traces: Sequence[Solution], problems: Collection[str], wrong: int, right: int, solved_only: bool
) -> list[Solution]:
    """Traces to label: of each of these problems the first few different wrong and right ones that have steps.

    With `solved_only` problems without a right trace are left out: from their prefixes rollouts fail whether the
    steps are true or not, so the labels would tell how hard the question is.
    """
    solved = {trace.problem_id for trace in traces if trace.right or not solved_only}
    seen: set[tuple[str, tuple[int, ...]]] = set()
    counts: dict[tuple[str, bool], int] = defaultdict(int)
    out = []
    for trace in traces:
        kind = (trace.problem_id, trace.right)
        if trace.problem_id not in problems or trace.problem_id not in solved or trace.num_steps < 2:
            continue
        if (trace.problem_id, trace.tokens) not in seen and counts[kind] < (right if trace.right else wrong):
            seen.add((trace.problem_id, trace.tokens))
            counts[kind] += 1
            out.append(trace)
    return out


def labels(context: StageContext) -> dict[str, Any]:
    """Rolls out every prefix of the student's wrong traces and turns rollouts into step labels."""
    settings = context.config.labels
    rows = artifacts.read_problems(context, "train")
    problems = {p.id: p for p in rows}
    traces = files.read_table(context.input("traces") / "traces.parquet", Solution)
    labelled = {p.id for p in rows[: settings.problems or None]}
    chosen = select(traces, labelled, settings.wrong_per_problem, settings.right_per_problem, settings.solved_only)
    counts = roll_out(context, "expert_iteration", problems, chosen)
    if not hosts.lead():
        return counts
    made = label(context, chosen)
    counts = {"rollouts": RolloutParts(context.folder).count} | counts
    _require_both_classes(made)
    oracle = tasks.oracle(context.config.task.name)
    false = None if oracle is None else {t.id: oracle(problems[t.problem_id].facts, t.steps) for t in chosen}
    kept, audit = finish(context, chosen, made, false)
    if not kept:
        raise InputError(
            f"no prefix length has both positive and negative labels, so balancing leaves none ({_by_prefix(made)}); "
            "change traces.per_problem, labels.wrong_per_problem or labels.rollouts, or set labels.balance=false"
        )
    counts |= {"traces": len(chosen), "labels": len(kept), "positive": sum(kept) / len(kept)}
    if "sorm_label_accuracy" in audit:
        total = audit["sorm_label_accuracy"]
        counts["label_accuracy"] = total["correct"] / total["count"]
    return counts


def label(context: StageContext, traces: Sequence[Solution]) -> list[StepLabels]:
    """Labels of some traces from their rollouts, before the balance."""
    settings = context.config.labels
    with RolloutParts(context.folder).shown(context, "labels of steps") as rollouts:
        return labelling.make(traces, rollouts, settings.consistency, settings.propagation)


def finish(
    context: StageContext, traces: Sequence[Solution], made: Sequence[StepLabels], false: Mapping[str, int] | None
) -> tuple[list[int], dict[str, Any]]:
    """Writes traces, labels, balanced labels and the audit; returns the labels that are left, and the audit.

    Args:
      false: see `audit_of`.
    """
    settings = context.config.labels
    balanced = labelling.balance(made, context.seed) if settings.balance else made
    files.write_table(context.folder / "traces.parquet", traces, Solution)
    files.write_table(context.folder / "labels.parquet", made, StepLabels)
    files.write_table(context.folder / "balanced.parquet", balanced, StepLabels)
    audit = audit_of(_variants(context, traces, made), balanced, false)
    if settings.search != "first":  # else nobody knows how many of K would have mended a prefix
        with RolloutParts(context.folder).shown(context, "noise of labels") as rollouts:
            audit["noise"] = label_noise.of(traces, rollouts, settings.consistency, settings.rollouts)
    files.write_json(context.folder / "audit.json", audit)
    return [x for entry in balanced for x in entry.labels if x >= 0], audit


def roll_out(
    context: StageContext, student: str, problems: Mapping[str, Problem], traces: Sequence[Solution]
) -> dict[str, Any]:
    """Writes the rollouts that the labels of some traces need; returns what is counted of them.

    They are written part by part, each by one process of the job. Parts that are there already are kept, whoever wrote
    them.

    Args:
      student: the stage whose model continues prefixes.
      problems: by id.
    """
    settings, temperature = context.config.labels, context.config.sampling.temperature
    labelling.check_reading(settings.consistency)
    verifying.check(settings)
    # Propagation makes a right trace positive everywhere, so it needs no rollouts; without it, it does. A trace of one
    # step has no prefix to continue.
    rolled = [t for t in traces if t.num_steps > 1 and not (t.right and settings.propagation)]
    tokenizer = artifacts.read_tokenizer(context)
    engine = artifacts.read_engine(context, student, tokenizer)
    (context.folder / "rollouts").mkdir(parents=True, exist_ok=True)
    parts = list(rollout_parts.split(context.folder, rolled))
    left = hosts.of_lead("rollouts", lambda: [n for n, (path, _) in enumerate(parts) if not path.exists()])
    mine = [parts[n] for n in (left if engine.together else hosts.share(left))]
    total = sum(t.num_steps - 1 for _, part in mine for t in part) * settings.rollouts
    label = f"verifying traces{hosts.of_all()}"
    with context.clock.spend("sampling"), context.progress(total, "rollouts", label) as bar:
        meter = artifacts.Meter(bar, context.clock)
        for path, part in mine:
            journal = Journal(context.checkpoint / "samples" / path.stem, writer=str(hosts.index()))
            with journal:
                rolling = Rollouts(engine, tokenizer, problems, temperature, context.key(), meter, journal)
                found = verifying.collect(rolling, part, settings, bar.advance)
            if hosts.lead() or not engine.together:
                files.write_table(path, found, Rollout)
                journal.remove()
    rate = sum(hosts.gather("rollouts are written", meter.rate()))
    if hosts.lead():
        files.appear([path for path, _ in parts])
    return {"rolled_out_traces": len(rolled), "sampled_tokens_per_second": rate}


def _by_prefix(made: Sequence[StepLabels]) -> str:
    rows = (f"{r['prefix']}: {r['positive']}/{r['count']}" for r in labelling.rates(made))
    return f"positive by prefix length: {', '.join(rows)}"


def _require_both_classes(made: Sequence[StepLabels]) -> None:
    if not made:
        raise InputError(
            "no trace to label: of labels.problems none has one of two steps or more "
            "(and, with labels.solved_only, a right one); raise labels.problems or traces.per_problem"
        )
    table = labelling.rates(made)
    positive, count = sum(r["positive"] for r in table), sum(r["count"] for r in table)
    if positive in (0, count):
        raise InputError(
            f"all {count} step labels are {'positive' if positive else 'negative'} ({_by_prefix(made)}); a value model "
            "cannot learn from one class: change the problems' difficulty, traces.per_problem or labels.rollouts"
        )


# The names under which the report plots positive rates.
_STEPS = {
    "raw any-of-K": "raw",
    "+ consistency": "consistency",
    "+ propagation": "propagation",
    "+ balance (what the SORM is trained on)": "balance",
}


def _variants(
    context: StageContext, traces: Sequence[Solution], made: Sequence[StepLabels]
) -> Mapping[str, Sequence[StepLabels]]:
    """Labels after each post-processing step and without some of them, by name.

    Args:
      made: the run's own labels, before the balance.
    """
    wrong, seed = {t.id for t in traces if not t.right}, context.seed
    if context.config.labels.search != "all":  # a search has only what the run's own labels need
        reading = context.config.labels.consistency
        with RolloutParts(context.folder).shown(context, "labels before propagation") as rollouts:
            looked = labelling.read(traces, rollouts, ("off", reading), seen=True)
        return {
            "raw any-of-K": looked["off"],
            "+ consistency": looked[reading],
            "+ propagation": made,
            "+ balance (what the SORM is trained on)": labelling.balance(made, seed),
            "all steps, wrong traces only": [e for e in made if e.trace_id in wrong],
        }
    with RolloutParts(context.folder).shown(context, "other labels, to compare") as rollouts:
        raw = labelling.read(traces, rollouts, labelling.READINGS)
    propagated, alone, strict = (labelling.propagated(raw[reading]) for reading in ("each", "off", "strict"))
    return {
        "raw any-of-K": raw["off"],
        "+ consistency": raw["each"],
        "+ propagation": propagated,
        "+ balance (what the SORM is trained on)": labelling.balance(propagated, seed),
        "propagation only": alone,
        "propagation and balance": labelling.balance(alone, seed),
        "strict consistency": raw["strict"],
        "strict consistency + propagation": strict,
        "all steps, wrong traces only": [e for e in propagated if e.trace_id in wrong],
    }


def audit_of(
    variants: Mapping[str, Sequence[StepLabels]], final: Sequence[StepLabels], false: Mapping[str, int] | None
) -> dict[str, Any]:
    """What each post-processing step does: positive rates, and agreement with those who know the first false step.

    Args:
      variants: labels by name, of `_variants`.
      final: what is trained on.
      false: the first false step by trace id, -1 for none: the oracle's, or a person's; None where nobody knows any.
    """
    rates = [
        {"stage": _STEPS[name], **row}
        for name, made in variants.items()
        if name in _STEPS
        for row in labelling.rates(made)
    ]
    if not false:
        return {"rates": rates}

    def agreement(made: Sequence[StepLabels]) -> dict[str, Any]:
        pairs = labelling.agreement([entry for entry in made if entry.trace_id in false], false)
        correct, count = (sum(column) for column in zip(*pairs, strict=True)) if pairs else (0, 0)
        return {"correct": correct, "count": count, "per_trace": [list(p) for p in pairs]}

    ablation = []
    for name, made in variants.items():
        found = agreement(made)
        accuracy = found["correct"] / max(found["count"], 1)
        ablation.append({"name": name, "accuracy": accuracy, "per_trace": found["per_trace"]})
    return {"rates": rates, "ablation": ablation, "sorm_label_accuracy": agreement(final)}
