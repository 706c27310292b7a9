"""The report's plots as inline SVG that follows the page's light or dark colours.

Figures are drawn with matplotlib's object interface, so no global figure state is touched and nothing is loaded
at import. Placeholder colours are replaced by CSS variables afterwards; text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholders that nothing else in a figure uses -> what the page defines.
_INK, _GRID = "#010203", "#040506"
_SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
_CSS = {_INK: "currentColor", _GRID: "var(--grid)", **{c: f"var(--series-{i})" for i, c in enumerate(_SERIES, 1)}}
_MARKERS = "os^Dvx"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
}

Points = Sequence[Mapping[str, Any]]


def _svg(name: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """Draws one figure; ids are prefixed with `name`, so that many figures share a page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        blank = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=blank)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows both names; the page holds no address at all
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for placeholder, css in _CSS.items():
        svg = svg.replace(placeholder, css)
    return svg


def _line(axes: Axes, points: Points, label: str, number: int) -> None:
    """One series with its interval as a band."""
    color, x = _SERIES[number % len(_SERIES)], [p["x"] for p in points]
    axes.plot(
        x, [100 * p["value"] for p in points], color=color, marker=_MARKERS[number % len(_MARKERS)], ms=4, label=label
    )
    if all(p["low"] is not None for p in points):
        low, high = [100 * p["low"] for p in points], [100 * p["high"] for p in points]
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def lines(
    name: str, series: Mapping[str, Points], xlabel: str, ylabel: str, diagonal: bool = False, whole: bool = True
) -> str:
    """Percent against x, one line a series; "" where no series has a point.

    Args:
      name: unique on the page.
      series: label -> points of `curves`.
      diagonal: draw where value equals x (calibration, x from 0 to 1).
      whole: x counts something, so only whole numbers are ticked.
    """
    drawn = {label: points for label, points in series.items() if points}
    if not drawn:
        return ""

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        if diagonal:
            axes.plot([0, 1], [0, 100], color=_INK, linewidth=0.8, linestyle=":")
        for number, (label, points) in enumerate(drawn.items()):
            _line(axes, points, label, number)
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 102)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if len(drawn) > 1:
            figure.legend(loc="outside upper left", ncols=min(len(drawn), 4), frameon=False)

    return _svg(name, (5.6, 3.5), draw)


def loss(name: str, points: Points) -> str:
    """One stage's training loss by optimizer step; "" where it has none."""
    found = [p for p in points if "step" in p and "loss" in p]
    if not found:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([p["step"] for p in found], [p["loss"] for p in found], color=_SERIES[0], linewidth=1.3)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss")

    return _svg(name, (3.4, 2.2), draw)


def all_plots(curves: Mapping[str, Any]) -> list[dict[str, str]]:
    """The page's plots in order, each with `title`, `caption` and `svg`; training apart."""

    def of(name: str, xlabel: str, ylabel: str, diagonal: bool = False) -> str:
        return lines(name, curves.get(name, {}), xlabel, ylabel, diagonal, whole=not diagonal)

    plots = [
        (
            "Step accuracy by prefix length",
            "Mean of the accuracies on right and wrong prefixes at 0.5, on test drafts, against the oracle.",
            of("step_accuracy_by_prefix", "steps in the prefix", "balanced accuracy, %"),
        ),
        (
            "Positive labels by prefix length",
            "SORM labels as sampled and after each post-processing step, in order.",
            of("label_rates", "steps in the prefix", "positive labels, %"),
        ),
        (
            "Calibration on final answers",
            "Final value against how often the draft's answer is right; on the dotted line, values are probabilities.",
            of("calibration_final", "final value", "right answers, %", diagonal=True),
        ),
        (
            "Calibration on steps",
            "Step value against how often the prefix is still right, on test drafts, by the oracle.",
            of("calibration_step", "step value", "right prefixes, %", diagonal=True),
        ),
        (
            "Accuracy by number of steps",
            "Right answers by how many computing steps the problem takes.",
            of("accuracy_by_steps", "steps of the problem", "right answers, %"),
        ),
        (
            "Student's pass@k",
            "Chance that k samples at the paper's temperature hold a right one.",
            of("pass_at_k", "samples k", "pass@k, %"),
        ),
        (
            "Student's step accuracy by position",
            "Chance that a step is true, given that all steps before it are.",
            of("student_step_accuracy", "position of the step", "true steps, %"),
        ),
    ]
    return [{"title": title, "caption": caption, "svg": svg} for title, caption, svg in plots if svg]


def training_plots(curves: Mapping[str, Points]) -> list[dict[str, str]]:
    """One small plot a stage, each with `title` and `svg`."""
    plots = [(stage, loss(f"training-{i}", points)) for i, (stage, points) in enumerate(curves.items())]
    return [{"title": stage, "svg": svg} for stage, svg in plots if svg]
