"""Draws runs as lines: a metric over steps or over depth, with bands over seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vgexp.report.comparing import charts
from vgexp.report.comparing.bands import Band
from vgexp.report.comparing.charts import Chart, Curve, Panel
from vgexp.report.comparing.comparison import DEFAULT_LAYER_METRIC
from vgexp.report.comparing.runs import load_runs
from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import layers_across
from vgexp.report.figures.logarithmic import drawn_values, log_limits, log_line, log_range
from vgexp.report.figures.looks import Look, Looks, looks_of

_PANEL_WIDTH, _PANEL_HEIGHT = 3.4, 2.7
"""Of one of several panels, in inches."""
_MOST_NAMED = 10
# With more lines than these markers hide lines, and lines each other.
_MOST_MARKED = 12
_NUM_MARKERS = 8
_LEAST_HEIGHT = 3.2
_LETTER = 0.075
"""Width of a legend's letter, in inches; of a title's it is a little more."""


def compare_figure(
    paths: Iterable[Path | str],
    metric: str | None = None,
    *,
    layers_at: str | None = None,
    seeds: bool = False,
    panels: str | None = None,
) -> Figure:
    """Draws runs and sweeps on disk as lines.

    Args:
        paths: as `vgexp compare` takes them.
        metric: over steps: see `histories`; over depth: a column of `layers.csv`. None: the
            training loss, or `delta_rms`.
        layers_at: None: over steps; `first`, `last` or a number: over depth at this step.
        seeds: whether runs equal but for the seed are one line with a band.
        panels: a key: a panel for each of its values.

    Raises:
        QuestionError: no such run, metric, step or key.
    """
    runs = load_runs(paths)
    if layers_at is None:
        return draw(charts.over_steps(runs, metric, seeds, panels))
    chosen = metric or DEFAULT_LAYER_METRIC
    return draw(charts.over_depth(runs, chosen, layers_at, seeds, panels))


@style.with_style
def draw(chart: Chart) -> Figure:
    """Draws a chart: its panels, the lines' names beside them, remarks below."""
    looks = _shown_looks(chart)
    names = _names(chart, looks)
    num_rows = -(-len(chart.panels) // chart.num_columns)
    is_one = len(chart.panels) == 1
    width, height = (style.WIDTH, style.HEIGHT) if is_one else (_PANEL_WIDTH, _PANEL_HEIGHT)
    beside = _LETTER * max((len(name) for name, _ in names), default=-8) + 0.6
    whole = max(width * chart.num_columns, style.WIDTH) + beside
    figure, every = style.canvas(
        num_rows, chart.num_columns,
        width=whole, height=max(height * num_rows, _LEAST_HEIGHT) + 0.2 * len(chart.remarks),
        sharex=True, sharey=True,
    )  # fmt: skip
    for axes, panel in zip(every, chart.panels, strict=False):
        _draw_panel(axes, panel, chart, looks.by_series)
        axes.set_title(style.label(panel.title))
    _scale(every, chart)
    _label_axes(every, chart)
    title = textwrap.fill(style.label(chart.title), int(whole / _LETTER * 0.86))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    if names:
        handles = [Line2D([], [], **{**look, "label": style.label(name)}) for name, look in names]
        figure.legend(handles=handles, loc="outside right upper", handlelength=3.0)
    if chart.remarks:
        lines = [textwrap.fill(style.label(words), int(whole / _LETTER)) for words in chart.remarks]
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8)
    return figure


def _shown_looks(chart: Chart) -> Looks:
    """The looks; of many lines thin ones without markers, which would hide them."""
    looks = looks_of([curve.group for curve in chart.curves], chart.keys)
    if max((len(panel.curves) for panel in chart.panels), default=0) <= _MOST_MARKED:
        return looks
    plain = {"marker": "", "linewidth": 1.0}
    return Looks(
        {series: {**look, **plain} for series, look in looks.by_series.items()},
        [(text, {**look, **plain}) for text, look in looks.parts],
    )


def _draw_panel(axes: Axes, panel: Panel, chart: Chart, looks: Mapping[str, Look]) -> None:
    shown = [curve for curve in panel.curves if not curve.is_empty]
    if not shown:
        style.say(axes, "no run has a value here")
        return
    for index, curve in enumerate(shown):
        look = dict(looks[curve.group.series])
        size = curve.band.x.size
        spacing = max(1, size // _NUM_MARKERS)
        look["markevery"] = (index % spacing, spacing)
        # A point alone is no line.
        look["marker"] = look["marker"] or ("o" if size == 1 else "")
        if curve.raw is not None and chart.shows_raw:
            raw = np.where(np.isfinite(curve.raw.y), curve.raw.y, np.nan)
            faint = {"color": look["color"], "alpha": 0.4, "linewidth": 0.7}
            axes.plot(curve.raw.x, raw, **faint, zorder=1)
        _draw_curve(axes, curve, chart.is_log, look)


def _draw_curve(axes: Axes, curve: Curve, is_log: bool, look: dict[str, Any]) -> None:
    band = curve.band
    x, centre, low, high = (
        np.insert(values, _breaks(curve), np.nan)
        for values in (band.x, band.centre, *_edges(band, is_log))
    )
    if is_log:
        log_line(axes, x, centre, **look)
    else:
        axes.plot(x, np.where(np.isfinite(centre), centre, np.nan), **look)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
    ends = [(place, _height(band, place, value)) for place, value in curve.ends]
    readout = [] if curve.readout is None else [(curve.readout, _height(band, curve.readout))]
    hollow = {"marker": look["marker"] or "o", "markerfacecolor": style.PAPER, "markersize": 6}
    # Between two breaks a point is no line, and would not be seen.
    alone = list(zip(x, centre, strict=True)) if not look["marker"] else []
    alone = [point for point, is_alone in zip(alone, _are_alone(centre), strict=False) if is_alone]
    marks: tuple[tuple[Sequence[tuple[float, float]], dict[str, Any]], ...] = (
        (alone, {"marker": "o", "markersize": 2.5}),
        (ends, {"marker": "x", "markersize": 8, "markeredgewidth": 1.8}),
        (readout, hollow),
    )
    for points, mark in marks:
        there = [(at, y) for at, y in points if np.isfinite(y) and (y > 0 or not is_log)]
        if there:
            colour = {"color": look["color"], "linestyle": "none", "zorder": 4}
            axes.plot(*zip(*there, strict=True), **colour, **mark)


def _breaks(curve: Curve) -> np.ndarray:
    """Before which values the line is broken: no line leads from a mean over some runs to one over
    more or fewer, nor into the read-out."""
    band = curve.band
    places = [place for place, _ in curve.ends]
    places += [] if curve.readout is None else [curve.readout - 1]
    breaks = np.searchsorted(band.x, places, side="right")
    if band.num_lines > 1:
        breaks = np.concatenate([breaks, np.flatnonzero(np.diff(band.counts)) + 1])
    return np.unique(breaks)


def _are_alone(values: np.ndarray) -> np.ndarray:
    """Which values are numbers between two that are none, or an edge."""
    is_there = np.isfinite(np.concatenate([[np.nan], values, [np.nan]]))
    return np.asarray(is_there[1:-1] & ~is_there[:-2] & ~is_there[2:])


def _height(band: Band, place: float, value: float = np.nan) -> float:
    """That of the line at a place; where the line has none, the run's own value."""
    (found,) = np.nonzero(band.x == place)
    return float(band.centre[found[0]]) if found.size else value


def _edges(band: Band, is_log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of a band; on a logarithmic axis what reaches 0 or below ends far below."""
    low = np.where(band.low > 0, band.low, band.centre * 1e-6) if is_log else band.low
    return np.where(np.isfinite(band.low), low, np.nan), band.high


def _scale(every: Sequence[Axes], chart: Chart) -> None:
    """Makes y, which panels share, as wide as all of their lines ask for."""
    panels = [
        (axes, panel)
        for axes, panel in zip(every, chart.panels, strict=False)
        if not all(curve.is_empty for curve in panel.curves)
    ]
    if not chart.is_log or not panels:
        return
    values: list[float] = []
    for axes, panel in panels:
        # Its margins would leave the range of float64.
        axes.set_autoscaley_on(False)
        values += drawn_values(axes).tolist()
        for curve in panel.curves:
            centres = style.finite(curve.band.centre)
            lows = curve.band.low[curve.band.low > centres.min(initial=np.inf) / 10]
            values += [*style.finite(lows), *style.finite(curve.band.high)]
    low, high = log_range(values, margin=0.05)
    log_limits([axes for axes, _ in panels], low, high)


def _label_axes(every: Sequence[Axes], chart: Chart) -> None:
    """Names of axes at the lowest panel of each column and the first of each row."""
    num_panels, num_columns = len(chart.panels), chart.num_columns
    for place, axes in enumerate(every):
        if place >= num_panels:
            axes.set_axis_off()
            continue
        if place + num_columns >= num_panels:
            axes.set_xlabel(chart.x_label)
            axes.tick_params(labelbottom=True)
        if place % num_columns == 0:
            room = style.HEIGHT if num_panels == 1 else _PANEL_HEIGHT
            axes.set_ylabel(textwrap.fill(style.label(chart.y_label), int(room / _LETTER * 0.8)))
    ends = style.finite([curve.band.x[-1] for curve in chart.curves])
    if chart.is_over_depth and ends.size:
        # There is no layer 0.
        numbers = np.arange(1, int(ends.max()) + 1)
        layers_across(every[0], numbers, list(map(str, numbers)))
        every[0].set_xlabel(chart.x_label if num_panels <= num_columns else "")
    else:
        style.tick_whole_numbers(every[0].xaxis)


def _names(chart: Chart, looks: Looks) -> list[tuple[str, Look]]:
    """The legend: what is said and how it looks; of many series some, and how many are not named.

    Empty where a single line has nothing to be told of.
    """
    series = list(looks.by_series)
    names = {name: name + _count(chart.panels, name) for name in series}
    if len(series) == 1 and names[series[0]] == series[0]:
        return []
    if len(series) > _MOST_NAMED and 0 < len(looks.parts) <= 2 * _MOST_NAMED:
        return list(looks.parts)
    chosen = series
    if len(series) > _MOST_NAMED:
        places = np.linspace(0, len(series) - 1, _MOST_NAMED).round().astype(int)
        chosen = [series[place] for place in places]
    legend: list[tuple[str, Look]] = [(names[name], looks.by_series[name]) for name in chosen]
    if len(series) > len(chosen):
        legend.append((f"and {len(series) - len(chosen)} more", {"linestyle": "none"}))
    return legend


def _count(panels: Sequence[Panel], series: str) -> str:
    """` (3 seeds)` of folded lines, ` (3 runs)` of some that look alike; nothing of one run."""
    words, numbers, noun = set(), [], "runs"
    for panel in panels:
        bands = [c.band for c in panel.curves if c.group.series == series and not c.is_empty]
        if not bands:
            continue
        is_folded = max(band.num_lines for band in bands) > 1
        noun = "seeds" if is_folded else noun
        numbers.append(sum(band.num_lines for band in bands))
        words.add(bands[0].seeds if is_folded else f"{len(bands)} {noun}")
    if max(numbers, default=1) == 1:
        return ""
    if len(words) == 1:
        return f" ({words.pop()})"
    few, many = min(numbers), max(numbers)
    return f" ({few} to {many} {noun})" if few < many else f" ({many} {noun}, fewer at places)"
