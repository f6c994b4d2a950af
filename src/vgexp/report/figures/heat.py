"""Maps of layer by step."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from vgexp.diagnosis.signal import SMALLEST_NORMAL
from vgexp.report.figures import style
from vgexp.report.figures.style import NOT_FINITE, SEQUENTIAL, UNDERFLOW, ZERO, Special
from vgexp.report.grid import READOUT, grid

_MOST_NAMED_LAYERS = 20


@style.drawn
def gradient_map(layers: pd.DataFrame, dtype: str = "float32") -> Figure:
    """The gradient norm of each layer at each measured step, on a logarithmic scale.

    Args:
        layers: rows as in `layers.csv`.
        dtype: of the run: below its smallest normal number a gradient underflows.
    """
    figure, [axes] = style.canvas()
    draw_gradient_map(axes, layers, dtype)
    axes.set_title("Gradient norm of each layer")
    return figure


def draw_gradient_map(axes: Axes, layers: pd.DataFrame, dtype: str = "float32") -> None:
    """The map into a panel, with its scale beside it; the layer nearest to the input on top."""
    table = grid(layers, "grad_norm")
    if table.empty:
        style.say(axes, "no gradient was measured")
        return
    # As autograd holds it: by the largest entry, which underflows last.
    largest = grid(layers, "grad_max").reindex(index=table.index, columns=table.columns)
    smallest = SMALLEST_NORMAL.get(dtype, 0.0)
    values = table.to_numpy()
    underflows = (values > 0) & (largest.to_numpy() < smallest)
    draw_map(axes, table, "gradient norm (L2)", {UNDERFLOW: underflows})


def draw_map(
    axes: Axes,
    table: pd.DataFrame,
    title: str,
    special: dict[Special, np.ndarray] | None = None,
) -> None:
    """A table of magnitudes, layers by steps: colours on a log scale, its title beside the scale.

    Exact zeros, what is not finite and `special` cells (masks [L, S]) are hatched and named
    below; what was not measured is left blank.
    """
    values = table.to_numpy(dtype="float64")
    marks = {
        **(special or {}),
        ZERO: values == 0,
        NOT_FINITE: np.isinf(values),
    }
    plain = np.isfinite(values) & (values > 0)
    for mask in marks.values():
        plain &= ~mask
    steps, rows = _edges(table.columns.to_numpy(dtype="float64")), np.arange(len(table) + 1) - 0.5
    shown = values[plain]
    low, high = (shown.min(), shown.max()) if shown.size else (0.1, 1.0)
    norm = LogNorm(low, high) if low < high else LogNorm(low / 3, high * 3)
    mesh = axes.pcolormesh(
        steps, rows, np.where(plain, values, np.nan), norm=norm, cmap=SEQUENTIAL, rasterized=True
    )
    used = [look for look, mask in marks.items() if mask.any()]
    for look in used:
        _hatch(axes, marks[look], steps, rows, look)
    if shown.size:
        axes.figure.colorbar(mesh, ax=axes, label=title, pad=0.02)
    axes.grid(False)
    axes.set(xlabel="step", ylabel="layer", xlim=(steps[0], steps[-1]), ylim=(rows[-1], rows[0]))
    style.whole_numbers(axes.xaxis)
    _name_layers(axes, list(table.index))
    if used:
        axes.legend(
            handles=[
                Patch(facecolor=look.face, hatch=look.hatch, edgecolor=style.INK, label=look.label)
                for look in used
            ],
            loc="upper left",
            bbox_to_anchor=(0.0, -0.14),
            ncols=len(used),
            borderaxespad=0.0,
        )


def _edges(steps: np.ndarray) -> np.ndarray:
    """Where the cells of measured steps meet [S + 1]: half-way, and as far beyond the ends."""
    if steps.size == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    between = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - between[0]], between, [2 * steps[-1] - between[-1]]])


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
    axes.add_collection(
        PolyCollection(
            corners, facecolor=look.face, hatch=look.hatch, edgecolor=style.INK, linewidth=0.0
        )
    )


def _name_layers(axes: Axes, names: list[str]) -> None:
    """Ticks at layers: all of a shallow net, some of a deep one, the first and the read-out."""
    last = len(names) - 1
    wanted = MaxNLocator(_MOST_NAMED_LAYERS // 2, integer=True).tick_values(1, len(names))
    numbered = {name: place for place, name in enumerate(names)}
    places = {numbered[name] for tick in wanted if (name := str(int(tick))) in numbered}
    if len(names) <= _MOST_NAMED_LAYERS:
        places = set(range(len(names)))
    places = {place for place in places if last - place > 0.03 * last} | {0, last}
    ordered = sorted(places)
    shown = ["read-out" if names[place] == READOUT else names[place] for place in ordered]
    axes.yaxis.set_major_locator(FixedLocator(ordered))
    axes.set_yticklabels(shown)
