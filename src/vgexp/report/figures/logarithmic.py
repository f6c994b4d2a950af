"""Logarithmic axes that show zeros and infinities at their edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from vgexp.report.figures.style import NOT_FINITE, ZERO, ten_to

_EDGE = 0.02
"""How far inside the panel a mark at its edge stands, as a share of its height."""
_BAND, _BAND_FACE = 0.08, "#f0f0f0"
"""Height of the band of exact zeros, as a share of the panel's, and its grey."""
_ZEROS = "zeros"
"""Group of the marks that stand in it."""
_MOST_MARKS = 60
SMALLEST, LARGEST = 1e-300, 1e300
"""What a scale holds: matplotlib multiplies beyond its ends, and float64 ends soon after."""
_BETWEEN = ((1.5, (1.0, 2.0, 5.0)), (3.0, (1.0, 3.0)))
"""Up to how many decades which multiples of powers of ten are named."""

_MOST_TICKS, _STRIDES = 8, (1, 2, 3, 5, 10, 20, 50, 100)


def log_line(axes: Axes, x: Any, y: Any, **look: Any) -> Line2D:
    """Draws a line over a logarithmic y axis.

    Breaks at what is nan or was not measured. An exact zero is an open triangle that points down
    at the lower edge, where `log_scale` makes a band of its own for it; an infinite value one that
    points up at the upper edge; the legend says so.
    Of more than 60 of a kind evenly spaced ones are drawn. What is below 1e-300 or above 1e300 is
    drawn there.

    Args:
        x, y: [n].
        look: what `Axes.plot` takes; `style.choose_line_look(i)` for instance.
    """
    x, y = np.asarray(x, dtype="float64"), np.asarray(y, dtype="float64")
    has_place = np.isfinite(y) & (y > 0)
    # First, so that a legend names the line before the marks.
    line = axes.plot(x, np.where(has_place, np.clip(y, SMALLEST, LARGEST), np.nan), **look)[0]
    size = max(5.0, line.get_markersize() + 2.0)
    _mark(axes, x[y == 0], _EDGE, line.get_color(), size)
    _mark(axes, x[np.isposinf(y)], 1 - _EDGE, NOT_FINITE.face, size)
    return line


def log_scale(
    axes: Axes,
    *,
    least_decades: float = 1.0,
    include: tuple[float, ...] = (),
    free_below: float = 0.0,
) -> None:
    """Makes y logarithmic, over the values drawn so far and `least_decades` at the least.

    Without a value that has a place there, the scale is that of 1. Exact zeros stand in a grey
    band of their own below all values, named 0.

    Args:
        include: values that are on the scale as well.
        free_below: share of the panel's height below all values and zeros.
    """
    values = np.concatenate([drawn_values(axes), include])
    log_limits([axes], *log_range(values, least_decades, margin=0.05), free_below)


def clip_to_scale(values: Any) -> np.ndarray:
    """Clips values for a linear axis, whose ends matplotlib adds; nan where one is not finite."""
    values = np.asarray(values, dtype="float64")
    return np.where(np.isfinite(values), values.clip(-LARGEST, LARGEST), np.nan)


def drawn_values(axes: Axes) -> np.ndarray:
    """Returns y [n] of the lines that a panel has so far."""
    drawn = [np.asarray(line.get_ydata(), dtype="float64") for line in axes.get_lines()
             if line.get_transform() == axes.transData]  # fmt: skip
    return np.concatenate([*drawn, []])


def log_limits(panels: Sequence[Axes], low: float, high: float, free_below: float = 0.0) -> None:
    """Makes y, which the panels share, logarithmic from `low` to `high`.

    Below stands what `log_scale` has there.
    """
    band = _BAND if any(_zeros_of(axes) for axes in panels) else 0.0
    lowest, free = low, free_below + band
    if free:
        lowest = 10 ** max(np.log10(low) - _decades(low, high) * free / (1 - free), -307.0)
    ticks = log_ticks(low, high).tolist()
    # In the middle of the band, whatever the scale is there.
    zero = float(10 ** (np.log10(lowest) + (free_below + band / 2) * _decades(lowest, high)))
    named = log_format(low, high)
    for axes in panels:
        # First the limits: with a scale alone matplotlib looks for some, beyond float64.
        axes.set_ylim(lowest, high)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([zero, *ticks] if band else ticks))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, place: "0" if value < low else named(value, place))
        )
        _draw_band(axes, free_below, band)


def log_range(values: Any, least_decades: float = 1.0, margin: float = 0.0) -> tuple[float, float]:
    """Returns the range of the positive finite values, at least so many decades wide.

    Args:
        margin: what is added at each end, as a share of the decades.
    """
    values = np.asarray(values, dtype="float64")
    values = values[np.isfinite(values) & (values > 0)]
    values = np.clip(values, SMALLEST, LARGEST)
    low, high = (values.min(), values.max()) if values.size else (1.0, 1.0)
    centre = np.log10(low) / 2 + np.log10(high) / 2
    half = max(_decades(low, high) * (1 + 2 * margin), least_decades) / 2
    return float(10 ** max(centre - half, -303.0)), float(10 ** min(centre + half, 303.0))


def log_ticks(low: float, high: float) -> np.ndarray:
    """Places the named ticks: at most eight powers of ten, with more between in a narrow range.

    Not by matplotlib's locator, which looks beyond the ends, where of wide scales no float64 is.
    """
    first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
    between = next((subs for most, subs in _BETWEEN if _decades(low, high) < most), (1.0,))
    every = next(step for step in _STRIDES if (last - first) / step < _MOST_TICKS)
    exponents = [e for e in range(first - 1, last + 1) if e % every == 0]
    ticks = np.array([sub * 10.0**exponent for exponent in exponents for sub in between])
    return ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]


def log_format(low: float, high: float) -> FuncFormatter:
    """Makes the names of ticks: 0.05 where all are like that, else 5 x 10^-2."""
    is_plain = low >= 1e-4 and high <= 1e5
    return FuncFormatter(lambda value, _: _plain(value) if is_plain else _power(value))


def _draw_band(axes: Axes, bottom: float, height: float) -> None:
    """The band of zeros, and the marks into it."""
    if not height:
        return
    axes.add_patch(
        Rectangle((0, bottom), 1, height, transform=axes.transAxes, color=_BAND_FACE, zorder=0)
    )
    for mark in _zeros_of(axes):
        mark.set_ydata(np.full(len(np.asarray(mark.get_xdata())), bottom + height / 2))


def _zeros_of(axes: Axes) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_gid() == _ZEROS]


def _plain(value: float) -> str:
    """Four digits, without an exponent."""
    return np.format_float_positional(float(f"{value:.4g}"), trim="-")


def _power(value: float) -> str:
    exponent = int(np.floor(np.log10(value) + 1e-9))
    mantissa = value / 10.0**exponent
    power = ten_to(exponent)
    return power if abs(mantissa - 1) < 1e-3 else f"{mantissa:.3g} × {power}"


def _decades(low: float, high: float) -> float:
    return float(np.log10(high) - np.log10(low))


def _mark(axes: Axes, x: np.ndarray, height: float, colour: Any, size: float) -> None:
    """Triangles at a height of the panel; the first of a kind brings its entry for a legend."""
    if not len(x):
        return
    x = x[:: -(-len(x) // _MOST_MARKS)]
    marker, words = ("^", NOT_FINITE.label) if height > 0.5 else ("v", ZERO.label)
    look: dict[str, Any] = {"linestyle": "none", "marker": marker, "markerfacecolor": "none"}
    axes.plot(
        x,
        np.full(len(x), height),
        transform=axes.get_xaxis_transform(),
        markersize=size,
        markeredgecolor=colour,
        zorder=4,
        clip_on=False,
        gid=_ZEROS if marker == "v" else None,
        **look,
    )
    if words not in axes.get_legend_handles_labels()[1]:
        edge = NOT_FINITE.face if marker == "^" else "#555555"
        axes.plot([], [], label=words, markersize=7, markeredgecolor=edge, **look)
