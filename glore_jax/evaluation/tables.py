"""The report as text: a rich table in the terminal, Markdown for docs/results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MISSING = "n/a"
_LOG_WIDTH = 110  # where no terminal says how wide it is: names stay whole
_VERDICT_STYLE = {"holds": "green", "fails": "red", "not": "yellow"}


def is_difference(name: str) -> bool:
    return "_minus_" in name


def figure(value: float | None, signed: bool = False) -> str:
    """A fraction as percent, or a difference as signed percentage points.

    >>> figure(0.534), figure(0.0812, signed=True), figure(None)
    ('53.4', '+8.1', 'n/a')
    """
    if value is None:
        return MISSING
    percent = round(100 * value, 1) or 0.0  # no negative zero
    return f"{percent:+.1f}" if signed and percent else f"{percent:.1f}"


def span(low: float | None, high: float | None, signed: bool = False) -> str:
    """An interval, or nothing where there is none."""
    return "" if low is None or high is None else f"{figure(low, signed)} to {figure(high, signed)}"


def over(row: Mapping[str, Any]) -> str:
    """`count/denominator`, or the denominator alone where the numerator is not a count."""
    return str(row["denominator"]) if row["count"] is None else f"{row['count']}/{row['denominator']}"


def by_heading(metrics: Mapping[str, Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The rows under each heading, in the report's order."""
    rows = {row["name"]: row for row in metrics["rows"]}
    for heading, names in metrics["groups"].items():
        yield heading, [rows[name] for name in names]


def claim_line(claim: Mapping[str, Any]) -> str:
    """A claim's figure against its bound, in one line."""
    signed = is_difference(claim["row"])
    if claim["value"] is None:
        return f"{claim['text']}: {claim['verdict']}"
    unit = "points" if signed else "%"
    interval = span(claim["low"], claim["high"], signed)
    return (
        f"{claim['text']}: {figure(claim['value'], signed)} {unit} ({interval}; "
        f"bound {figure(claim['bound'], signed)}): {claim['verdict']}"
    )


def _table(metrics: Mapping[str, Any]) -> Table:
    from rich.table import Table

    pooled = metrics["runs"] > 1
    table = Table(title=f"{metrics['problems']} test problems, {metrics['runs']} run(s); percent, 95 % interval")
    table.add_column("metric", overflow="fold")
    for column in ("value", "interval", *(("seeds",) if pooled else ()), "paper", "over"):
        table.add_column(column, justify="right", no_wrap=column != "seeds")
    for heading, rows in by_heading(metrics):
        table.add_section()
        table.add_row(f"[bold]{heading}[/bold]")
        for row in rows:
            signed = is_difference(row["name"])
            seeds = [" ".join(figure(value, signed) for value in row.get("seeds", ()))] if pooled else []
            paper = figure(row["paper"], signed) if row["paper"] is not None else ""
            table.add_row(
                row["name"],
                figure(row["value"], signed),
                span(row["low"], row["high"], signed),
                *seeds,
                paper,
                over(row),
            )
    return table


def wide_console() -> Console:
    """The standard output, wide enough for a table where no terminal says how wide it is."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)


def print_report(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the table and the claims.

    Args:
      metrics: what `write_report` or `pool` returned, or metrics.json read back.
      console: where to; the standard output if None.
    """
    from rich.text import Text

    console = console or wide_console()
    console.print(_table(metrics))
    if metrics["ablation"]:
        console.print("\nWhat each post-processing step adds to the labels (agreement with the oracle, %)")
        for entry in metrics["ablation"]:
            line = f"  {entry['name']}: {figure(entry['value'])} ({span(entry['low'], entry['high'])}; {over(entry)})"
            console.print(Text(line))
    console.print("\nThe paper's claims, checked on this run" + ("s" if metrics["runs"] > 1 else ""))
    for claim in metrics["claims"]:
        beside = "  beside it: " if claim["beside"] else ""
        style = _VERDICT_STYLE[claim["verdict"].split()[0]]
        console.print(Text(f"  {claim['number']}. {beside}{claim_line(claim)}", style=style))
        if claim["note"]:
            console.print(Text(f"     {claim['note']}"))


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def claims_markdown(metrics: Mapping[str, Any]) -> str:
    """The claims as a Markdown list."""
    lines = []
    for claim in metrics["claims"]:
        beside = "beside it: " if claim["beside"] else ""
        lines.append(f"- {claim['number']}. {beside}{claim_line(claim)}")
        if claim["note"]:
            lines.append(f"  {claim['note']}")
    return "\n".join(lines) + "\n"


def ablation_markdown(metrics: Mapping[str, Any]) -> str:
    """SORM label accuracy by post-processing as a Markdown table; "" where it was not measured."""
    if not metrics["ablation"]:
        return ""
    lines = [_markdown_row(("labels", "right %", "95 % interval", "over")), "| --- | ---: | ---: | ---: |"]
    for entry in metrics["ablation"]:
        cells = (entry["name"], figure(entry["value"]), span(entry["low"], entry["high"]), over(entry))
        lines.append(_markdown_row(cells))
    return "\n".join(lines) + "\n"


def table_markdown(metrics: Mapping[str, Any]) -> str:
    """The rows as a Markdown table; pooled metrics also show each seed and the interval over seeds."""
    pooled = metrics["runs"] > 1
    heads = [
        "metric",
        "value %",
        "95 % interval",
        *(("seeds", "interval over seeds") if pooled else ()),
        "paper",
        "over",
    ]
    lines = [_markdown_row(heads), "| --- |" + " ---: |" * (len(heads) - 1)]
    for heading, rows in by_heading(metrics):
        lines.append(_markdown_row([f"**{heading}**", *[""] * (len(heads) - 1)]))
        for row in rows:
            signed = is_difference(row["name"])
            cells = [f"`{row['name']}`", figure(row["value"], signed), span(row["low"], row["high"], signed)]
            if pooled:
                cells.append(", ".join(figure(value, signed) for value in row["seeds"]))
                cells.append(span(row["seed_low"], row["seed_high"], signed))
            cells += [figure(row["paper"], signed) if row["paper"] is not None else "", over(row)]
            lines.append(_markdown_row(cells))
    return "\n".join(lines) + "\n"


def markdown(metrics: Mapping[str, Any], title: str, command: str, revision: str) -> str:
    """A whole results page for docs/results: how it was made, claims, ablation, table, definitions."""
    definitions = "\n".join(f"- `{row['name']}`: {row['definition']}" for row in metrics["rows"])
    ablation = ablation_markdown(metrics)
    parts = [
        f"# {title}\n",
        f"Command: `{command}`  \nRevision: `{revision}`  \n"
        f"{metrics['problems']} test problems, {metrics['runs']} run(s). Percent; intervals: 95 % bootstrap.\n",
        "## The paper's claims\n\n" + claims_markdown(metrics),
        *(["## What each post-processing step adds to the labels\n\n" + ablation] if ablation else []),
        "## All figures\n\n" + table_markdown(metrics),
        "## Definitions\n\n" + definitions + "\n",
    ]
    return "\n".join(parts)
