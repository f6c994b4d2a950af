"""Draws points in characters: a signal over depth or time, a loss over steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from vgexp.report.terminal.axes import LABEL_WIDTH, labels_of, room, show_parts, ticks
from vgexp.report.terminal.inks import Ink, inks_for, make_text
from vgexp.report.terminal.layout import number, printable
from vgexp.report.terminal.scale import Scale

HEIGHT = 9
MARKS: Sequence[Ink] = (("o", "#e69f00"), ("+", "#56b4e9"), ("x", "#009e73"))
"""Told apart by their form; the colours are Okabe's and Ito's."""
_BLANK: Ink = (" ", "")


@dataclass(frozen=True)
class Points:
    """Points that are drawn with one mark.

    What is nan or infinite is `!` at the top; 0 on a log scale is `0` at the bottom.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    mark: Ink
    least: NDArray[np.float64] | None = None
    """With `most`: a line from the one to the other behind each point."""
    most: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Plot:
    """The content of one plot; of points that fall into one cell the last is seen."""

    title: str
    x_name: str
    points: Sequence[Points]
    scale: Scale | None
    """None: nothing is finite and, by the logarithm, above 0."""
    first: float
    last: float
    """The ends of the x axis."""
    height: int = HEIGHT
    level: tuple[str, float] | None = None
    """A line across, and what it means."""
    footers: Sequence[tuple[str, Sequence[Ink]]] = field(default_factory=tuple)
    """Lines of as many cells as the plot is wide, each with its label."""


def plot_width(console: Console) -> int:
    """Returns the width of a plot in cells."""
    return room(console.width)


def place_of(x: NDArray[np.float64], first: float, last: float, width: int) -> NDArray[np.int64]:
    """Returns the cell of each x, from 0."""
    if last <= first:
        return np.zeros(x.shape, "int64")
    return np.rint((x - first) / (last - first) * (width - 1)).astype("int64")


def show_plot(console: Console, plot: Plot) -> None:
    """Prints the title, the frame, both axes, and which mark is what."""
    width = plot_width(console)
    cells = _cells(console, plot, width)
    kind = "" if plot.scale is None else ", log scale" if plot.scale.is_log else ""
    console.print(Text(printable(plot.title + kind, console), style="bold"))
    for label, row in zip(_labels(plot), cells, strict=True):
        line = Text(f"{label:>{LABEL_WIDTH}} ") + make_text(row)
        line.rstrip()
        console.print(line, soft_wrap=True)
    for name, footer in plot.footers:
        console.print(Text(f"{name:>{LABEL_WIDTH}} ") + make_text(footer), soft_wrap=True)
    console.print(Text(_x_axis(plot, width), style="dim"), soft_wrap=True)
    _show_marks(console, plot)


def _cells(console: Console, plot: Plot, width: int) -> list[list[Ink]]:
    inks = inks_for(console)
    cells = [[_BLANK] * width for _ in range(plot.height)]
    for points in plot.points:
        columns = place_of(points.x, plot.first, plot.last, width)
        if points.least is not None and points.most is not None and plot.scale is not None:
            for column, least, most in zip(columns, points.least, points.most, strict=True):
                if np.isfinite([least, most]).all():
                    for row in range(_row(plot, most), _row(plot, least) + 1):
                        cells[row][column] = (inks.range_line, "dim")
    # Over the ranges, which would leave little of it.
    if plot.level is not None and plot.scale is not None:
        cells[_row(plot, plot.level[1])] = [(inks.guess_line, "dim")] * width
    for points in plot.points:
        columns = place_of(points.x, plot.first, plot.last, width)
        for column, y in zip(columns, points.y, strict=True):
            if not np.isfinite(y):
                cells[0][column] = inks.not_finite
            elif plot.scale is None or (y == 0 and plot.scale.is_log):
                cells[-1][column] = inks.zero
            else:
                cells[_row(plot, y)][column] = points.mark
    return cells


def _row(plot: Plot, y: float) -> int:
    """Returns the row of a value, counted from the top."""
    assert plot.scale is not None
    return round((1 - plot.scale.share(float(y))) * (plot.height - 1))


def _covers(plot: Plot, width: int) -> bool:
    """Whether some point hides one of another mark."""
    cells = [
        {
            (int(column), _row(plot, y))
            for column, y in zip(
                place_of(points.x, plot.first, plot.last, width), points.y, strict=True
            )
            if np.isfinite(y) and plot.scale is not None
        }
        for points in plot.points
    ]
    return sum(map(len, cells)) > len(set().union(*cells))


def _labels(plot: Plot) -> list[str]:
    labels = [""] * plot.height
    if plot.scale is not None:
        rows = [0, (plot.height - 1) // 2, plot.height - 1]
        rows = rows if plot.scale.low < plot.scale.high else rows[:1]
        values = [plot.scale.at(1 - row / (plot.height - 1)) for row in rows]
        for row, label in zip(rows, labels_of(values), strict=True):
            labels[row] = label
    return labels


def _x_axis(plot: Plot, width: int) -> str:
    values = np.unique(np.rint(np.linspace(plot.first, plot.last, 6)))
    places = place_of(values, plot.first, plot.last, width)
    labels = [f"{value:.0f}" for value in values]
    return f"{plot.x_name:>{LABEL_WIDTH}} {ticks(labels, places.tolist(), width)}"


def _show_marks(console: Console, plot: Plot) -> None:
    inks = inks_for(console)
    parts = [make_text([points.mark]).append(f" {points.name}") for points in plot.points]
    if _covers(plot, plot_width(console)):
        parts.append(Text("(later over earlier)"))
    every = np.concatenate([points.y for points in plot.points])
    if plot.level is not None and plot.scale is not None:
        name, value = plot.level
        parts.append(make_text([(inks.guess_line * 2, "dim")]).append(f" {name} {number(value)}"))
    parts += [Text(f"{name}: share of the steps") for name, _ in plot.footers]
    is_log = plot.scale is None or plot.scale.is_log
    if is_log and (every == 0).any():
        parts.append(make_text([inks.zero]).append(" exactly 0"))
    if not np.isfinite(every).all():
        parts.append(make_text([inks.not_finite]).append(" nan or inf"))
    show_parts(console, parts)
