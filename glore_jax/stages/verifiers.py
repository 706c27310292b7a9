"""Stages that label the traces and train the value models."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from glore_jax import files, tasks
from glore_jax.errors import InputError
from glore_jax.method import labels as labelling
from glore_jax.method import reward_models, soft_labels, verifying
from glore_jax.pipeline import StageContext
from glore_jax.records import Problem, Rollout, Solution, StepLabels
from glore_jax.sampling import rollouts as rolling
from glore_jax.stages import artifacts
from glore_jax.training import losses

_TRACES_A_PART = 250  # rollouts are written in parts, so a cut run loses one part at most


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
    """Rolls out every prefix of the wrong traces and turns rollouts into step labels."""
    settings = context.config.labels
    labelling.check_reading(settings.consistency)
    verifying.check(settings)
    rows = artifacts.read_problems(context, "train")
    problems = {p.id: p for p in rows}
    traces = files.read_table(context.input("traces") / "traces.parquet", Solution)
    labelled = {p.id for p in rows[: settings.problems or None]}
    chosen = select(traces, labelled, settings.wrong_per_problem, settings.right_per_problem, settings.solved_only)
    # Propagation makes a right trace positive everywhere, so it needs no rollouts; without it, it does.
    rolled = [t for t in chosen if not t.right or not settings.propagation]
    rolled_out = _roll_out(context, problems, rolled)
    by_trace = read_rollouts(context.folder)
    counts = {"rollouts": sum(map(len, by_trace.values()))} | rolled_out
    made = labelling.make(chosen, by_trace, settings.consistency, settings.propagation)
    _require_both_classes(made)
    balanced = labelling.balance(made, context.seed) if settings.balance else made
    kept = [x for entry in balanced for x in entry.labels if x >= 0]
    if not kept:
        raise InputError(
            f"no prefix length has both positive and negative labels, so balancing leaves none ({_by_prefix(made)}); "
            "change traces.per_problem, labels.wrong_per_problem or labels.rollouts, or set labels.balance=false"
        )
    files.write_table(context.folder / "traces.parquet", chosen, Solution)
    files.write_table(context.folder / "labels.parquet", made, StepLabels)
    files.write_table(context.folder / "balanced.parquet", balanced, StepLabels)
    variants = _variants(chosen, by_trace, made, settings.search == "all", context.seed)
    audit = audit_of(context.config.task.name, problems, chosen, variants, balanced)
    files.write_json(context.folder / "audit.json", audit)
    counts |= {"traces": len(chosen), "labels": len(kept), "positive": sum(kept) / len(kept)}
    if "sorm_label_accuracy" in audit:
        total = audit["sorm_label_accuracy"]
        counts["label_accuracy"] = total["correct"] / total["count"]
    return counts


def _roll_out(context: StageContext, problems: Mapping[str, Problem], traces: Sequence[Solution]) -> dict[str, Any]:
    """Writes the rollouts of all traces, part by part; parts that are there already are kept."""
    tokenizer = artifacts.read_tokenizer(context)
    engine = artifacts.read_engine(context, "expert_iteration", tokenizer)
    settings, temperature = context.config.labels, context.config.sampling.temperature
    folder = context.folder / "rollouts"
    folder.mkdir(exist_ok=True)
    total = sum(t.num_steps - 1 for t in traces) * settings.rollouts
    with context.progress(total, "rollouts", "verifying traces") as bar:
        meter = artifacts.Meter(bar)

        def roll(
            traces: Sequence[Solution], count: int, prefixes: Mapping[str, Sequence[int]], first: int = 0
        ) -> list[Rollout]:
            given = engine, tokenizer, problems, traces, count, temperature, context.key(), meter
            return rolling.verifying_traces(*given, prefixes=prefixes, first=first)

        for number, at in enumerate(range(0, len(traces), _TRACES_A_PART)):
            path = folder / f"part-{number:05d}.parquet"
            part = traces[at : at + _TRACES_A_PART]
            if path.exists():
                bar.advance(sum(t.num_steps - 1 for t in part) * settings.rollouts)
                continue
            files.write_table(path, verifying.collect(roll, part, settings, bar.advance), Rollout)
    return {"rolled_out_traces": len(traces), "sampled_tokens_per_second": meter.rate()}


def read_rollouts(folder: Any) -> dict[str, list[Rollout]]:
    """Rollouts of the label stage, by trace."""
    by_trace: dict[str, list[Rollout]] = defaultdict(list)
    for path in sorted((folder / "rollouts").glob("part-*.parquet")):
        for rollout in files.read_table(path, Rollout):
            by_trace[rollout.trace_id].append(rollout)
    return by_trace


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
    traces: Sequence[Solution],
    rollouts: Mapping[str, Sequence[Rollout]],
    made: Sequence[StepLabels],
    everywhere: bool,
    seed: int,
) -> Mapping[str, Sequence[StepLabels]]:
    """Labels after each post-processing step and without some of them, by name.

    Args:
      made: the run's own labels, before the balance.
      everywhere: whether every prefix was rolled out. A search has only what the run's own labels need.
    """
    wrong = {t.id for t in traces if not t.right}
    if not everywhere:
        own = {"+ propagation": made, "+ balance (what the SORM is trained on)": labelling.balance(made, seed)}
        return own | {"all steps, wrong traces only": [e for e in made if e.trace_id in wrong]}
    propagated, alone = (labelling.make(traces, rollouts, reading, True) for reading in ("each", "off"))
    return {
        "raw any-of-K": labelling.make(traces, rollouts, "off", False),
        "+ consistency": labelling.make(traces, rollouts, "each", False),
        "+ propagation": propagated,
        "+ balance (what the SORM is trained on)": labelling.balance(propagated, seed),
        "propagation only": alone,
        "propagation and balance": labelling.balance(alone, seed),
        "strict consistency": labelling.make(traces, rollouts, "strict", False),
        "strict consistency + propagation": labelling.make(traces, rollouts, "strict", True),
        "all steps, wrong traces only": [e for e in propagated if e.trace_id in wrong],
    }


def audit_of(
    task: str,
    problems: Mapping[str, Problem],
    traces: Sequence[Solution],
    variants: Mapping[str, Sequence[StepLabels]],
    final: Sequence[StepLabels],
) -> dict[str, Any]:
    """What each post-processing step does: positive rates, and agreement with the oracle where there is one."""
    rates = [
        {"stage": _STEPS[name], **row}
        for name, made in variants.items()
        if name in _STEPS
        for row in labelling.rates(made)
    ]
    oracle = tasks.oracle(task)
    if oracle is None:
        return {"rates": rates}
    false = {t.id: oracle(problems[t.problem_id].facts, t.steps) for t in traces}
    ablation = []
    for name, made in variants.items():
        pairs = labelling.agreement(made, false)
        correct, count = (sum(column) for column in zip(*pairs, strict=True))
        ablation.append({"name": name, "accuracy": correct / max(count, 1), "per_trace": [list(p) for p in pairs]})
    pairs = labelling.agreement(final, false)
    correct, count = (sum(column) for column in zip(*pairs, strict=True))
    total = {"correct": correct, "count": count, "per_trace": [list(p) for p in pairs]}
    return {"rates": rates, "ablation": ablation, "sorm_label_accuracy": total}


def _train_value(
    context: StageContext,
    train: Any,
    traces: Sequence[Solution],
    labels: Sequence[StepLabels],
    targets: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    settings = context.config.value
    start = artifacts.start_of(settings, "value")
    tokenizer = artifacts.read_tokenizer(context)
    problems = {p.id: p for p in artifacts.read_problems(context, "train")}
    model, params = artifacts.read_model(context.input(start), context.config.train_dtype)
    params = artifacts.with_value_head(context, params, model.config.d_model, settings.surprise)
    traces, labels, labels_cut = reward_models.truncate(tokenizer, problems, traces, labels, train.row_length)
    examples = reward_models.examples(tokenizer, problems, traces, labels, model.config.prefix_lm, targets)
    loss = functools.partial(losses.value, language=settings.language)
    trained, counts = artifacts.train(context, model, params, loss, examples, train, tokenizer)
    artifacts.write_trained(context.folder, trained, model.config)
    kept = [x for entry in labels for x in entry.labels if x >= 0]
    counts["step_accuracy"] = counts.pop("token_accuracy")
    return counts | {"labels": len(kept), "labels_cut": labels_cut, "positive": sum(kept) / len(kept)}


def orm(context: StageContext) -> dict[str, Any]:
    """ORM: the final label at every step end of every trace."""
    traces = files.read_table(context.input("traces") / "traces.parquet", Solution)
    return _train_value(context, context.config.orm.train, traces, reward_models.orm_labels(traces))


def orm_balanced(context: StageContext) -> dict[str, Any]:
    """ORM on equal numbers of right and wrong traces of each question."""
    traces = reward_models.balanced_traces(files.read_table(context.input("traces") / "traces.parquet", Solution))
    if not traces:
        raise InputError("no question has both a right and a wrong trace; raise traces.per_problem")
    return _train_value(context, context.config.orm.train, traces, reward_models.orm_labels(traces))


def sorm(context: StageContext) -> dict[str, Any]:
    """SORM: the balanced step labels."""
    return _train_value(context, context.config.sorm.train, *_labelled(context))


def sorm_of_rollouts(context: StageContext) -> dict[str, Any]:
    """SORM: the balanced step labels, or at the same steps what `sorm.target` makes of the rollouts."""
    config = context.config
    soft_labels.check_target(config.sorm.target)
    if config.sorm.target == "any":
        return sorm(context)
    traces, labels = _labelled(context)
    samples = files.read_table(context.input("traces") / "traces.parquet", Solution)
    how = config.labels.consistency, config.labels.propagation
    by_trace = read_rollouts(context.input("labels"))
    targets = soft_labels.targets(config.sorm.target, traces, by_trace, samples, *how)
    return _train_value(context, config.sorm.train, traces, labels, targets)


def _labelled(context: StageContext) -> tuple[list[Solution], list[StepLabels]]:
    folder = context.input("labels")
    traces = files.read_table(folder / "traces.parquet", Solution)
    return traces, files.read_table(folder / "balanced.parquet", StepLabels)
