"""Draws maps of layers by steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from vgexp.quantities import column_of
from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import layers_down
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_format, log_range, log_ticks
from vgexp.report.figures.style import NOT_FINITE, SEQUENTIAL, UNDERFLOW, ZERO, Special
from vgexp.report.figures.thinning import lower_medians
from vgexp.report.figures.wanted import draws_table
from vgexp.report.grid import grid_of

LEAST_DECADES = 3.0
"""Of a map's scale, as in the terminal: with fewer a steady gradient would show every colour."""
_MOST_STEPS = 1000
"""Columns of a map; a panel has fewer pixels."""


@draws_table("layers", "step", "layer", "kind", "grad_norm", "grad_max")
def gradient_map(
    layers: pd.DataFrame, dtype: str | None = "float32", loss_scale: pd.Series | None = None
) -> Figure:
    """The gradient norm of each layer at each measured step, on a logarithmic scale.

    A gradient whose largest entry is below the smallest normal number of the dtype over the loss
    scale underflows (`vgexp.report.grid.underflows`). What is NaN in the table was not measured
    and is blank, a step without any value too; unless the gradient's share of zeros was measured,
    when it was nan and is not finite.

    Args:
        layers: rows as in `layers.csv`.
        dtype: of the run; None: not known, and nothing underflows.
        loss_scale: by step; None: 1.
    """
    return style.draw_alone(
        draw_gradient_map, "Gradient norm of each layer", layers, dtype, loss_scale
    )


def draw_gradient_map(
    axes: Axes,
    layers: pd.DataFrame,
    dtype: str | None = "float32",
    loss_scale: pd.Series | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draws the map into a panel, with its scale beside it and layer 1 on top.

    Args:
        limits: ends of a scale that several maps share, `draw_scale` beside them; None: the
            table's own, beside it.
    """
    found = grid_of(layers, "grad_norm", dtype, loss_scale, every_step=True)
    if not found.measured_LS.any():
        style.say(axes, "no gradient was measured")
        return
    special = {UNDERFLOW: found.is_tiny_LS}
    draw_map(axes, found.table(), column_of("layers", "grad_norm").label, special, limits)


def draw_map(
    axes: Axes,
    table: pd.DataFrame,
    title: str,
    special: dict[Special, np.ndarray] | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draws a table of magnitudes, layers by steps, in colours on a logarithmic scale.

    Exact zeros, what is not finite and `special` cells (masks [L, S]) are hatched and named
    below; what was not measured is left blank. Of more than 1,000 steps neighbours share a
    column: it is special if one of them is, else their lower median.
    """
    values = table.to_numpy(dtype="float64")
    together = -(-table.shape[1] // _MOST_STEPS)
    starts = np.arange(0, table.shape[1], together)
    marks = {NOT_FINITE: np.isinf(values), ZERO: values == 0, **(special or {})}
    plain = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    plain[np.logical_or.reduce(list(marks.values()))] = np.nan
    taken = np.zeros((len(table), len(starts)), bool)
    for look, mask in marks.items():
        marks[look] = np.logical_or.reduceat(mask, starts, axis=1) & ~taken
        taken |= marks[look]
    shown = np.where(taken, np.nan, lower_medians(plain, together))
    edges = _edges(table.columns.to_numpy(dtype="float64"))
    steps, rows = edges[[*starts, -1]], np.arange(len(table) + 1) - 0.5
    low, high = limits or log_range(shown, LEAST_DECADES)
    mesh = axes.pcolormesh(
        steps,
        rows,
        np.clip(shown, low, high),
        norm=LogNorm(low, high),
        cmap=SEQUENTIAL,
        rasterized=True,
    )
    marks = dict(reversed(marks.items()))
    for look, mask in marks.items():
        _hatch(axes, mask, steps, rows, look)
    if not np.isnan(shown).all() and limits is None:
        draw_scale([axes], mesh, title)
    axes.grid(False)
    # A single step is a narrow column: nothing is known beside it.
    is_single = table.shape[1] == 1
    pad = 2.0 if is_single else 0.0
    axes.set(xlim=(steps[0] - pad, steps[-1] + pad), ylim=(rows[-1], rows[0]))
    axes.set_xlabel(f"step (medians of {together} measured)" if together > 1 else "step")
    style.tick_whole_numbers(axes.xaxis)
    if is_single:
        axes.set_xticks(table.columns.tolist())
    layers_down(axes, list(table.index))
    legend_below(axes, [_swatch(look) for look, mask in marks.items() if mask.any()])


def draw_scale(panels: Sequence[Axes], mesh: ScalarMappable, title: str) -> None:
    """Draws the scale of maps beside them."""
    low, high = mesh.get_clim()
    assert low is not None
    assert high is not None
    bar = panels[0].figure.colorbar(
        mesh, ax=list(panels), label=title, pad=0.02, ticks=log_ticks(low, high).tolist()
    )
    bar.ax.yaxis.set_major_formatter(log_format(low, high))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())


def _swatch(look: Special) -> Patch:
    return Patch(facecolor=look.face, hatch=look.hatch, edgecolor=style.INK, label=look.label)


def _edges(steps: np.ndarray) -> np.ndarray:
    """Where the cells of measured steps meet [S + 1]: half-way; half a step beyond the ends."""
    between = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[steps[0] - 0.5], between, [steps[-1] + 0.5]])


def _hatch(
    axes: Axes, mask: np.ndarray, steps: np.ndarray, rows: np.ndarray, look: Special
) -> None:
    """Hatched rectangles over the cells of a mask [L, S], one for each run of steps in a row."""
    corners = []
    for row, cells in enumerate(mask):
        changes = np.flatnonzero(np.diff(np.concatenate([[0], cells.astype("int8"), [0]])))
        for start, end in changes.reshape(-1, 2):
            left, right, top, bottom = steps[start], steps[end], rows[row], rows[row + 1]
            corners.append([(left, top), (right, top), (right, bottom), (left, bottom)])
    if not corners:
        return
    axes.add_collection(
        PolyCollection(
            corners, facecolor=look.face, hatch=look.hatch, edgecolor=style.INK, linewidth=0.0
        )
    )
