"""Draws a sweep as a map: two keys as axes, a metric of each run as colour."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from vgexp.report.comparing.runs import load_runs
from vgexp.report.comparing.sweep_grid import (
    CUT_SHORT,
    DIVERGED,
    FAILED,
    Cell,
    SweepGrid,
    sweep_grid,
)
from vgexp.report.comparing.swept import columns_of
from vgexp.report.figures import style
from vgexp.report.figures.color_scales import ColorScale, Colour, scale_of
from vgexp.report.figures.frontiers import draw_frontiers
from vgexp.report.figures.legends import count_columns
from vgexp.report.figures.style import NOT_FINITE, ZERO, Special

_CELL = 0.72, 0.46
"""Inches of a cell, as long as a panel has room."""
_NARROW = 0.56
"""Inches across a cell where panels stand side by side."""
_LEAST, _MOST = (2.4, 1.7), (7.0, 5.5)
_LEAST_TO_WRITE = 0.5, 0.28
_MOST_TICKS = 24
_BESIDE, _BELOW = 2.4, 1.5
"""Inches for the scale and for titles, names and hatching."""
_LETTER = 0.085
_WORD = 0.09
"""Inches of a letter of a tick."""
_SQUARE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])

NO_RUN = Special("no run", "#e3e3e3", "")
NO_VALUE = Special("no value", "#ffffff", "\\\\\\\\")
SEVERAL = Special("several words, each as frequent", "#ffffff", "||")
STATES = {
    DIVERGED: Special("diverged", "none", "////"),
    FAILED: Special("failed", "none", "++++"),
    CUT_SHORT: Special("cut short", "none", "...."),
}


def sweep_map(
    paths: Iterable[Path | str],
    x: str | None = None,
    y: str | None = None,
    color: str | None = None,
    step: str = "first",
) -> Figure:
    """Draws runs and sweeps on disk as a map.

    Args:
        paths: as `vgexp compare` takes them.
        x, y, color, step: as `sweep_grid` takes them.

    Raises:
        QuestionError: no such run, key or metric.
    """
    return draw(sweep_grid(load_runs(paths), x, y, color, step))


@style.with_style
def draw(grid: SweepGrid) -> Figure:
    """Draws the maps of a sweep with one scale of colours; explains other marks below."""
    num_columns = columns_of(len(grid.panels))
    num_rows = -(-len(grid.panels) // num_columns)
    counts = len(grid.x.texts), len(grid.y.texts)
    scale = scale_of(grid.color, grid.values)
    needed = max(_LEAST_TO_WRITE[0], _LETTER * max(map(len, scale.words), default=0))
    cell = max(_CELL[0] if num_columns == 1 else _NARROW, needed), _CELL[1]
    sides = zip(counts, cell, _LEAST, _MOST, strict=True)
    width, height = (min(max(n * side, least), most) for n, side, least, most in sides)
    is_written = width / counts[0] >= needed and height / counts[1] >= _LEAST_TO_WRITE[1]
    whole = width * num_columns + _BESIDE
    figure, every = style.canvas(
        num_rows, num_columns,
        width=whole, height=(height + 0.35) * num_rows + _BELOW,
        sharex=True, sharey=True,
    )  # fmt: skip
    used: dict[Special, None] = {}
    lines: dict[str, Line2D] = {}
    for axes, panel in zip(every, grid.panels, strict=False):
        used |= _draw_panel(axes, grid, panel.cells, scale, is_written)
        lines |= {str(line.get_label()): line for line in draw_frontiers(axes, grid, panel.cells)}
        axes.set_title(style.label(panel.title), fontsize=10)
    _name_axes(every, len(grid.panels), grid, width / counts[0])
    _explain(figure, every, scale, [*map(_swatch, used), *lines.values()])
    title = [grid.title, *filter(None, [grid.folded])]
    words = [textwrap.fill(style.label(line), int(whole / _LETTER)) for line in title]
    figure.suptitle("\n".join(words), x=0.01, ha="left", fontsize=10)
    return figure


def _draw_panel(
    axes: Axes,
    grid: SweepGrid,
    cells: Mapping[tuple[str, str], Cell],
    scale: ColorScale,
    is_written: bool,
) -> dict[Special, None]:
    """Draws the cells; returns what they show beside colours."""
    colours = scale.colours_of(cell.value for cell in cells.values() if cell.value is not None)
    faces_YX3 = np.empty((len(grid.y.texts), len(grid.x.texts), 3))
    hatched: dict[tuple[Special, str], list[tuple[int, int]]] = {}
    for row, y in enumerate(grid.y.texts):
        for column, x in enumerate(grid.x.texts):
            face, specials = _look(cells.get((x, y)), colours)
            faces_YX3[row, column] = face
            for special in specials:
                hatched.setdefault((special, _ink(face)), []).append((column, row))
            if (x, y) in cells and is_written:
                _write(axes, (column, row), cells[x, y], face)
    across, up = (np.arange(len(texts) + 1) - 0.5 for texts in (grid.x.texts, grid.y.texts))
    edges: dict[str, Any] = {"edgecolor": style.PAPER, "linewidth": 1} if is_written else {}
    axes.pcolormesh(across, up, faces_YX3, **edges)
    for (special, ink), places in hatched.items():
        squares = [(np.array(place) + _SQUARE).tolist() for place in places]
        axes.add_collection(
            PolyCollection(
                squares, facecolor="none", hatch=special.hatch, edgecolor=ink, linewidth=0
            )
        )
    axes.grid(False)
    # Words are read from the top.
    axes.set(xlim=across[[0, -1]], ylim=up[[0, -1]] if grid.y.is_numeric else up[[-1, 0]])
    return dict.fromkeys(special for special, _ in hatched)


def _look(cell: Cell | None, colours: Mapping[Any, Colour]) -> tuple[Colour, list[Special]]:
    """What a cell looks like: its face, and what it shows beside the scale's colours."""
    if cell is None:
        return to_rgb(NO_RUN.face), [NO_RUN]
    face, specials = to_rgb(style.PAPER), []
    if cell.tied:
        specials.append(SEVERAL)
    elif cell.value in colours:
        face = colours[cell.value]
    elif cell.value is not None:
        specials.append(ZERO if cell.value == 0 else NOT_FINITE)
        face = to_rgb(specials[0].face)
    elif not cell.state:
        specials.append(NO_VALUE)
    if cell.state and cell.state not in (cell.value, *cell.tied):
        specials.append(STATES[cell.state])
    return face, specials


def _write(axes: Axes, place: tuple[int, int], cell: Cell, face: Colour) -> None:
    """The value into its cell, and how many runs are behind it where not all are."""
    if cell.value is None:
        return
    text = style.label(cell.value) if isinstance(cell.value, str) else short_number(cell.value)
    text = "\n".join([text, *map(style.label, cell.tied)])
    if cell.num_counted < cell.num_runs:
        text += f"\n{cell.num_counted} of {cell.num_runs}{' each' if cell.tied else ''}"
    axes.text(
        *place, text, ha="center", va="center", fontsize=6.5 if cell.tied else 8, color=_ink(face),
        path_effects=[withStroke(linewidth=2.5, foreground=face)],
    )  # fmt: skip


def _ink(face: Colour) -> str:
    """What is seen on a face: dark on light, light on dark."""
    red, green, blue = face
    return style.PAPER if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else style.INK


def short_number(value: float) -> str:
    """Writes a number in a few characters: `0.00016`, `1.03`, `2.1e-16`, `123`, `3e5`."""
    digits = 3 if 0.1 <= abs(value) < 9999.5 else 2
    text = f"{value:.0f}" if 999.5 <= abs(value) < 9999.5 else f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _name_axes(every: Sequence[Axes], num_panels: int, grid: SweepGrid, cell_width: float) -> None:
    num_columns = columns_of(num_panels)
    for axes in every[num_panels:]:
        axes.set_axis_off()
    for place, axes in enumerate(every[:num_panels]):
        for axis, texts in ((axes.xaxis, grid.x.texts), (axes.yaxis, grid.y.texts)):
            spacing = -(-len(texts) // _MOST_TICKS)
            axis.set_ticks(range(0, len(texts), spacing), map(style.label, texts[::spacing]))
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        if place + num_columns >= num_panels:
            axes.set_xlabel(style.label(grid.x.label))
            axes.tick_params(labelbottom=True)
        if place % num_columns == 0:
            axes.set_ylabel(style.label(grid.y.label))
        longest = max(map(len, grid.x.texts))
        if longest * _WORD > cell_width * -(-len(grid.x.texts) // _MOST_TICKS):
            axes.tick_params(axis="x", labelrotation=40)
            for text in axes.get_xticklabels():
                text.set(ha="right", rotation_mode="anchor")


def _explain(
    figure: Figure, every: Sequence[Axes], scale: ColorScale, below: Sequence[Artist]
) -> None:
    """The colours beside the panels, hatching and theory's lines below them."""
    ink: dict[str, Any] = {"edgecolor": style.INK, "linewidth": 0.4}
    if scale.norm is None:
        handles = [
            Patch(facecolor=colour, label=style.label(word), **ink)
            for word, colour in scale.words.items()
        ]
        figure.legend(handles=handles, title=scale.title, loc="outside right upper")
    else:
        bar = figure.colorbar(
            ScalarMappable(scale.norm, scale.map), ax=list(every), label=scale.title, pad=0.02
        )
        if scale.ticks is not None:
            bar.set_ticks(scale.ticks, labels=[f"{tick:.3g}" for tick in scale.ticks], minor=False)
            bar.ax.minorticks_off()
    if below:
        num_columns = count_columns(below, figure.get_figwidth() * 72)
        figure.legend(handles=below, loc="outside lower left", ncols=num_columns)


def _swatch(look: Special) -> Patch:
    return Patch(
        facecolor=look.face, hatch=look.hatch, label=look.label, edgecolor=style.INK, linewidth=0.4
    )
