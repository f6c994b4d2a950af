"""Logarithmic axes that hide nothing: what they have no place for is shown at their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from vgexp.report.figures.style import NOT_FINITE

_EDGE = 0.02
"""How far inside the panel a mark at its edge stands, as a share of its height."""


def log_line(axes: Axes, x: Any, y: Any, **look: Any) -> None:
    """A line over a logarithmic y axis.

    Breaks at what is nan or was not measured. An exact zero is an open triangle that points down
    at the lower edge, an infinite value one that points up at the upper edge.

    Args:
        x, y: [n].
        look: what `Axes.plot` takes; `series(i)` for instance.
    """
    x, y = np.asarray(x, dtype="float64"), np.asarray(y, dtype="float64")
    has_place = np.isfinite(y) & (y > 0)
    line = axes.plot(x, np.where(has_place, y, np.nan), **look)[0]
    edge = axes.get_xaxis_transform()
    for there, height, marker in (
        (y == 0, _EDGE, "v"),
        (np.isposinf(y), 1 - _EDGE, "^"),
    ):
        axes.plot(
            x[there],
            np.full(there.sum(), height),
            transform=edge,
            linestyle="none",
            marker=marker,
            markersize=7,
            markerfacecolor="none",
            markeredgecolor=line.get_color() if marker == "v" else NOT_FINITE.face,
            clip_on=False,
        )


def log_scale(axes: Axes, *, least_decades: float = 1.0) -> None:
    """Makes y logarithmic, over the values drawn so far and `least_decades` at the least.

    Without a value that has a place there, the scale is that of 1.
    """
    drawn = [np.asarray(line.get_ydata(), dtype="float64") for line in axes.get_lines()
             if line.get_transform() == axes.transData]  # fmt: skip
    values = np.concatenate(drawn) if drawn else np.empty(0)
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if values.size else (1.0, 1.0)
    centre, half = np.log10(low) / 2 + np.log10(high) / 2, np.log10(high) - np.log10(low)
    half = max(half * 1.1, least_decades) / 2
    axes.set_yscale("log")
    axes.set_ylim(*_powers(centre - half, centre + half))
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
    if 2 * half > 3:
        axes.yaxis.set_minor_formatter(NullFormatter())


def _powers(low: float, high: float) -> tuple[float, float]:
    """Ten to these, inside what float64 holds."""
    return 10 ** max(low, -307.0), 10 ** min(high, 308.0)
