"""Draws the steps at which something happened as a strip at the foot of a panel."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from vgexp.report.figures import style

HEIGHT = 0.035
"""Of a strip, as a share of the panel's."""
_MOST_CELLS = 300
_FAINTEST = 0.4
"""What a cell of many steps shows of a single one."""


def draw_strip(axes: Axes, steps: np.ndarray, happened: np.ndarray, row: int, what: str) -> Any:
    """Draws a strip of cells whose colour is the stronger the more of their steps it happened at.

    Args:
        steps, happened: [n], in order.
        row: of strips above each other, from 0 at the foot.
        what: the event; the share of steps is added.

    Returns:
        The entry for a legend.
    """
    colour = (style.SPIKE, style.INK)[row % 2]
    edges = np.append(steps, 2 * steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] + 1) - 0.5
    starts = np.arange(0, len(steps), -(-len(steps) // _MOST_CELLS))
    shares = np.add.reduceat(happened.astype("float64"), starts)
    lengths = np.diff(np.append(starts, len(steps)))
    bottom = row * (HEIGHT + 0.008)
    cells, colours = [], []
    for start, length, count in zip(starts, lengths, shares, strict=True):
        if count:
            left, right = edges[start], edges[start + length]
            cells.append([(left, bottom), (right, bottom), (right, bottom + HEIGHT),
                          (left, bottom + HEIGHT)])  # fmt: skip
            opacity = _FAINTEST + (1 - _FAINTEST) * count / length
            colours.append((*to_rgb(colour), opacity))
    axes.add_collection(
        PolyCollection(
            cells, facecolors=colours, edgecolors="none", transform=axes.get_xaxis_transform()
        ),
        autolim=False,
    )
    return Patch(facecolor=colour, label=f"{what}: {style.percent(happened.mean())} of steps")
