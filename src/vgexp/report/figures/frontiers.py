"""Draws theory's boundaries over the map of a sweep: a steady, a vanishing, an exploding signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from vgexp.diagnosis.signal import EXPLODING_ABOVE, VANISHING_BELOW
from vgexp.report.comparing.sweep_grid import Cell, SweepGrid
from vgexp.report.figures import style

Logs = NDArray[np.float64]
_END = 700.0
"""Logarithm that stands for what is 0 or inf; no line goes beyond the cells from there."""


class Frontier(NamedTuple):
    """The line on which a predicted metric has a value."""

    metric: str
    level: float
    dashes: Any
    words: str


FRONTIERS = (
    Frontier("predicted_backward_factor_per_layer", 1.0, "-", "theory: a layer passes on all"),
    Frontier("predicted_attenuation", VANISHING_BELOW, "--", "theory: 1e-3 reaches layer 1"),
    Frontier("predicted_attenuation", EXPLODING_ABOVE, ":", "theory: 1e3 times reaches layer 1"),
)


def draw_frontiers(
    axes: Axes, grid: SweepGrid, cells: Mapping[tuple[str, str], Cell]
) -> list[Line2D]:
    """Draws lines over cells whose axes are numbers; returns the legend entries of those drawn."""
    if not (grid.x.is_numeric and grid.y.is_numeric):
        return []
    drawn = []
    for frontier in FRONTIERS:
        logs_YX = _logs(grid, cells, frontier.metric) - np.log(frontier.level)
        if min(logs_YX.shape) < 2:
            continue
        logs_YX = _to_edges(_to_edges(logs_YX).T).T
        there = logs_YX[np.isfinite(logs_YX)]
        if not there.size or there.min() >= 0 or there.max() <= 0:
            continue
        look: dict[str, Any] = {"color": style.INK, "linewidth": 1.8}
        lines = axes.contour(
            *(_places(num) for num in logs_YX.shape[::-1]),
            logs_YX,
            levels=[0.0],
            colors=style.INK,
            linestyles=[frontier.dashes],
            linewidths=1.8,
        )
        # Seen on dark cells too.
        lines.set_path_effects([withStroke(linewidth=4.0, foreground=style.PAPER)])
        drawn.append(Line2D([], [], linestyle=frontier.dashes, label=frontier.words, **look))
    return drawn


def _to_edges(logs_YX: Logs) -> Logs:
    """With a column at each end, half a cell further, on the straight line through the last two."""
    ends = [
        np.where(np.maximum(abs(end), abs(near)) < _END / 2, 1.5 * end - near / 2, end)
        for end, near in ((logs_YX[:, :1], logs_YX[:, 1:2]), (logs_YX[:, -1:], logs_YX[:, -2:-1]))
    ]
    return np.hstack((ends[0], logs_YX, ends[1]))


def _places(num: int) -> NDArray[np.float64]:
    """Of the columns that `_to_edges` returns."""
    return np.array([-0.5, *range(num - 2), num - 2.5])


def _logs(grid: SweepGrid, cells: Mapping[tuple[str, str], Cell], metric: str) -> Logs:
    """Logarithms of what is predicted [Y, X]; nan where nothing is, of what is 0 or inf the end."""
    values = [
        [
            cells[x, y].theory.get(metric, np.nan) if (x, y) in cells else np.nan
            for x in grid.x.texts
        ]
        for y in grid.y.texts
    ]
    with np.errstate(divide="ignore"):
        logs: Logs = np.log(np.array(values, dtype="float64"))
    return logs.clip(-_END, _END)
