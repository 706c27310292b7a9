"""What step labels are worth, before anything is trained on them: rates, agreement, noise, and some to read.

Label bugs are silent: a value model learns wrong labels as readily as right ones. What to look for: rates that do not
fall along the prefix, a post-processing step that changes nothing or everything, little agreement with those who know
the first false step, many positives missed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glore_jax.evaluation.tables import figure
from glore_jax.records import Problem, Rollout, Solution, StepLabels

Uses = Callable[[Solution, Rollout], bool]
_EXAMPLES = 4
_SIGNS = {1: ("+", "green"), 0: ("-", "red"), -1: (" ", "dim")}


def parts(
    audit: Mapping[str, Any],
    problems: Mapping[str, Problem],
    traces: Sequence[Solution],
    labels: Sequence[StepLabels],
    rollouts: Mapping[str, Sequence[Rollout]],
    uses: Uses,
) -> Iterator[RenderableType]:
    """Tables and lines of the report.

    Args:
      audit: of the stage that made the labels.
      problems: by id; rollouts: by trace id.
      labels: before the balance.
      uses: whether a rollout of a trace is consistent with its prefix.
    """
    flat = [x for entry in labels for x in entry.labels if x >= 0]
    sizes = [len(mine) for mine in rollouts.values()]  # in one pass: they may be on disk
    yield Text(f"{len(traces):,} solutions, {len(flat):,} labels, {figure(sum(flat) / len(flat))} % positive")
    yield Text(f"{sum(sizes):,} rollouts of {sum(map(bool, sizes)):,} solutions")
    yield _rates(audit["rates"])
    if "ablation" in audit:
        yield _agreement(audit)
    yield _noise(audit["noise"]) if "noise" in audit else Text("noise: not estimated; it takes K rollouts a prefix")
    yield from _examples(problems, traces, labels, rollouts, uses)


def _rates(rates: Sequence[Mapping[str, Any]]) -> Table:
    """Positive labels by prefix length, a column a post-processing step."""
    cells: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rates:
        share = figure(row["positive"] / row["count"]) if row["count"] else ""
        cells[row["prefix"]][row["stage"]] = f"{share}  of {row['count']}"
    names = list(dict.fromkeys(row["stage"] for row in rates))
    table = Table("prefix", title="positive labels by prefix length, percent", title_justify="left")
    for name in names:
        table.add_column(name, justify="right")
    for prefix, found in sorted(cells.items()):
        table.add_row(str(prefix), *(found.get(name, "") for name in names))
    return table


def _agreement(audit: Mapping[str, Any]) -> Table:
    known = len(audit["sorm_label_accuracy"]["per_trace"])
    title = f"agreement with the known first false step ({known:,} solutions), percent"
    table = Table("labels", "agree", "over", title=title, title_justify="left")
    for row in audit["ablation"]:
        table.add_row(row["name"], figure(row["accuracy"]), str(sum(pair[1] for pair in row["per_trace"])))
    return table


def _noise(noise: Mapping[str, Any]) -> Text:
    K, by = noise["rollouts"], noise["counts"]
    found = f"noise: of {noise['prefixes']:,} prefixes with {K} rollouts "
    found += ", ".join(f"{number:,} were mended by {mended}" for mended, number in enumerate(by) if number)
    if noise["share"] is None:
        return Text(found)
    return Text(
        f"{found}.\nOf the {by[0]:,} that none mended this model can mend {noise['missed']:.0f} "
        f"({figure(noise['share'])} %) or more (Chao's lower bound)."
    )


def _examples(
    problems: Mapping[str, Problem],
    traces: Sequence[Solution],
    labels: Sequence[StepLabels],
    rollouts: Mapping[str, Sequence[Rollout]],
    uses: Uses,
) -> Iterator[RenderableType]:
    """Solutions with labels of both kinds, each step with what its rollouts came to."""
    both = [(t, e) for t, e in zip(traces, labels, strict=True) if {0, 1} <= set(e.labels)]
    for trace, entry in both[:: max(1, len(both) // _EXAMPLES)][:_EXAMPLES]:
        problem, mine = problems[trace.problem_id], rollouts.get(trace.id, ())
        lines = [Text(f"\n{trace.id}: {problem.question}  [answer {problem.answer}]", style="bold")]
        for i, (step, label) in enumerate(zip(trace.steps, entry.labels, strict=True), 1):
            sign, style = _SIGNS[label]
            lines.append(Text(f"  {sign} {step}", style=style).append(_came_to(trace, i, mine, uses), style="dim"))
        yield Group(*lines)


def _came_to(trace: Solution, prefix: int, rollouts: Sequence[Rollout], uses: Uses) -> str:
    here = [rollout for rollout in rollouts if rollout.prefix == prefix]
    if not here:
        return ""
    right = [rollout for rollout in here if rollout.right]
    used = sum(uses(trace, rollout) for rollout in right)
    apart = "" if used == len(right) else f", {used} of them consistent"
    return f"   ({len(here)} rollouts, {len(right)} right{apart})"
