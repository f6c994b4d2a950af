"""Places legends below their panel, never on its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from vgexp.report.figures import style

_BELOW_POINTS = 36
"""From the axis down to the legend: the ticks' names and the axis' own stand between."""
_MARKS = (style.ZERO.label, style.NOT_FINITE.label)
"""What comes last in a legend, whichever line needed it first."""
_LETTER_POINTS, _HANDLE_POINTS = 5.0, 38


def legend_below(axes: Axes, handles: Sequence[Any] | None = None) -> None:
    """Places a legend below the axis label; none where nothing has a label.

    Args:
        handles: artists with labels; None: those of the panel.
    """
    found = list(axes.get_legend_handles_labels()[0] if handles is None else handles)
    if not found:
        return
    found.sort(key=lambda handle: handle.get_label() in _MARKS)
    place = axes.get_subplotspec()
    num_panels = 1 if place is None else place.get_gridspec().ncols
    figure = axes.get_figure(root=True)
    assert figure is not None
    width = figure.get_figwidth() * 72 / num_panels - 60
    below = offset_copy(axes.transAxes, figure, 0, -_BELOW_POINTS, units="points")
    axes.legend(
        handles=found,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=below,
        borderaxespad=0.0,
        borderpad=0.0,
        columnspacing=1.4,
        handlelength=2.4,
        ncols=count_columns(found, width),
    )


def count_columns(handles: Sequence[Any], width: float) -> int:
    """Returns how many columns a legend of this width in points has."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    return max(1, min(len(handles), int(width // (_LETTER_POINTS * longest + _HANDLE_POINTS))))
