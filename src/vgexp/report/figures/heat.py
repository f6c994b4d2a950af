"""Maps of layer by step."""

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

from vgexp.diagnosis.signal import SMALLEST_NORMAL
from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import evenly, layers_down
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_format, log_range, log_ticks
from vgexp.report.figures.style import NOT_FINITE, SEQUENTIAL, UNDERFLOW, ZERO, Special
from vgexp.report.grid import grid

LEAST_DECADES = 3.0
"""Of a map's scale, as in the terminal: with fewer a steady gradient would show every colour."""
_MOST_STEPS = 1000
"""Columns of a map; a panel has fewer pixels."""


@style.drawn
def gradient_map(layers: pd.DataFrame, dtype: str = "float32") -> Figure:
    """The gradient norm of each layer at each measured step, on a logarithmic scale.

    Args:
        layers: rows as in `layers.csv`.
        dtype: of the run: below its smallest normal number a gradient underflows. In half
            precision weights and their gradients are float32.
    """
    figure, [axes] = style.canvas()
    draw_gradient_map(axes, layers, dtype)
    axes.set_title("Gradient norm of each layer")
    return figure


def draw_gradient_map(
    axes: Axes,
    layers: pd.DataFrame,
    dtype: str = "float32",
    limits: tuple[float, float] | None = None,
) -> None:
    """The map into a panel, with its scale beside it; the layer nearest to the input on top.

    Args:
        limits: ends of a scale that several maps share, `draw_scale` beside them; None: the
            table's own, beside it.
    """
    table = grid(layers, "grad_norm")
    if table.empty:
        style.say(axes, "no gradient was measured")
        return
    # As autograd holds it: by the largest entry, which underflows last.
    largest = grid(layers, "grad_max").reindex(index=table.index, columns=table.columns)
    smallest = SMALLEST_NORMAL["float64" if dtype == "float64" else "float32"]
    values = table.to_numpy()
    underflows = (values > 0) & (largest.to_numpy() < smallest)
    draw_map(axes, table, "gradient norm (L2)", {UNDERFLOW: underflows}, limits)


def draw_map(
    axes: Axes,
    table: pd.DataFrame,
    title: str,
    special: dict[Special, np.ndarray] | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """A table of magnitudes, layers by steps: colours on a log scale, its title beside the scale.

    Exact zeros, what is not finite and `special` cells (masks [L, S]) are hatched and named
    below; what was not measured is left blank. Of more than 1,000 steps evenly spaced ones are
    shown.
    """
    shown = evenly(table.shape[1], _MOST_STEPS)
    num_steps, table = table.shape[1], table.iloc[:, shown]
    values = table.to_numpy(dtype="float64")
    special = {look: mask[:, shown] for look, mask in (special or {}).items()}
    marks = {**special, ZERO: values == 0, NOT_FINITE: np.isinf(values)}
    plain = np.isfinite(values) & (values > 0)
    for mask in marks.values():
        plain &= ~mask
    steps, rows = _edges(table.columns.to_numpy(dtype="float64")), np.arange(len(table) + 1) - 0.5
    low, high = limits or log_range(values[plain], LEAST_DECADES)
    mesh = axes.pcolormesh(
        steps,
        rows,
        np.where(plain, np.clip(values, low, high), np.nan),
        norm=LogNorm(low, high),
        cmap=SEQUENTIAL,
        rasterized=True,
    )
    for look, mask in marks.items():
        _hatch(axes, mask, steps, rows, look)
    if plain.any() and limits is None:
        draw_scale([axes], mesh, title)
    axes.grid(False)
    # A single step is a narrow column: nothing is known beside it.
    pad = 2.0 if len(shown) == 1 else 0.0
    axes.set(xlim=(steps[0] - pad, steps[-1] + pad), ylim=(rows[-1], rows[0]))
    note = f" ({len(shown)} of {num_steps} measured are shown)" if len(shown) < num_steps else ""
    axes.set_xlabel(f"step{note}")
    style.whole_numbers(axes.xaxis)
    if len(shown) == 1:
        axes.set_xticks(table.columns.tolist())
    layers_down(axes, list(table.index))
    legend_below(axes, [_swatch(look) for look, mask in marks.items() if mask.any()])


def draw_scale(panels: Sequence[Axes], mesh: ScalarMappable, title: str) -> None:
    """The scale of maps, beside them."""
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
