"""Draws a metric as a heat map: layer 1 on top, the read-out below, steps from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.text import Text

from vgexp.report.grid import Grid, is_norm
from vgexp.report.terminal.axes import LABEL_WIDTH, room, show_parts, ticks
from vgexp.report.terminal.bands import Bands, make_bands
from vgexp.report.terminal.inks import Ink, Inks, inks_for, make_text
from vgexp.report.terminal.layout import number, printable, show_words
from vgexp.report.terminal.scale import Scale, scale_for

MOST_ROWS = 24
_WIDEST_CELL = 8


def show_heat_map(console: Console, grid: Grid, metric: str) -> None:
    """Prints the map, its axes, and below it what its signs mean.

    A map with more than `MOST_ROWS` layers, or more steps than columns, shows bands of them.
    """
    inks = inks_for(console)
    width = room(console.width)
    bands = make_bands(grid, MOST_ROWS, width)
    scale = _scale_of(metric, bands)
    places = _places(len(bands.starts), width)
    cells = [end - start for start, end in pairwise(places)]
    for label, values, is_tiny in zip(bands.labels, bands.values, bands.is_tiny, strict=True):
        row = [
            ink_of(value, tiny, scale, inks) for value, tiny in zip(values, is_tiny, strict=True)
        ]
        wide = [(mark * cell, style) for (mark, style), cell in zip(row, cells, strict=True)]
        # Of a very deep net the number of the first layer alone has room.
        short = label if len(label) <= LABEL_WIDTH else label.partition("-")[0]
        line = Text(f"{short:>{LABEL_WIDTH}} ") + make_text(wide)
        console.print(line, soft_wrap=True, no_wrap=True)
    _show_steps(console, grid, bands, places)
    _show_scale(console, metric, bands, scale, inks)
    for sentence in _sentences(grid, bands, metric):
        show_words(console, sentence)


def ink_of(value: float | None, is_tiny: bool, scale: Scale | None, inks: Inks) -> Ink:
    """Returns how a cell is drawn; None: nothing was measured."""
    if value is None:
        return inks.not_measured
    if not np.isfinite(value):
        return inks.not_finite
    if is_tiny:
        return inks.underflow
    if value == 0 and (scale is None or scale.is_log):
        return inks.zero
    assert scale is not None
    return inks.levels[scale.level(value, len(inks.levels))]


def _scale_of(metric: str, bands: Bands) -> Scale | None:
    """Makes the scale of the values that are drawn as levels."""
    shown = [
        value
        for row, tiny_row in zip(bands.values, bands.is_tiny, strict=True)
        for value, is_tiny in zip(row, tiny_row, strict=True)
        if value is not None and not is_tiny
    ]
    return scale_for(metric, np.array(shown, "float64"))


def _places(num_columns: int, width: int) -> list[int]:
    """Where each column begins, and where the last ends: they share the width as evenly as cells
    allow."""
    width = min(width, _WIDEST_CELL * num_columns)
    return [width * column // num_columns for column in range(num_columns + 1)]


def _show_steps(console: Console, grid: Grid, bands: Bands, places: Sequence[int]) -> None:
    labels, starts = [str(step) for step in bands.starts], list(places[:-1])
    width = max(places[-1], len(labels[0]))
    if len(labels) > 1:
        # The last measured step stands at the end of the last column.
        labels[-1] = str(grid.steps[-1])
        starts[-1] = max(0, width - len(labels[-1]))
    line = f"{'step':>{LABEL_WIDTH}} {ticks(labels, starts, width)}"
    console.print(Text(line, style="dim"), soft_wrap=True)


def _show_scale(
    console: Console, metric: str, bands: Bands, scale: Scale | None, inks: Inks
) -> None:
    """The legend: levels between the numbers at their ends, and the marks that occur."""
    parts = []
    if scale is not None:
        low, high = number(scale.low, 2), number(scale.high, 2)
        kind = "log scale" if scale.is_log else "linear"
        levels = make_text([(mark * 2, style) for mark, style in inks.levels])
        name, bar = Text(f"{printable(metric, console)}, {kind}:"), Text(f"{low} ") + levels
        bar.append(f" {high}")
        fits = name.cell_len + 1 + bar.cell_len <= console.width
        parts += [name.append(" ").append_text(bar)] if fits else [name, bar]
    for mark, meaning in _marks(bands, scale, inks):
        parts.append(make_text([mark]).append(f" {meaning}"))
    show_parts(console, parts)


def _marks(bands: Bands, scale: Scale | None, inks: Inks) -> list[tuple[Ink, str]]:
    cells = [
        ink_of(value, is_tiny, scale, inks)
        for row, tiny_row in zip(bands.values, bands.is_tiny, strict=True)
        for value, is_tiny in zip(row, tiny_row, strict=True)
    ]
    meanings = (
        (inks.zero, "exactly 0"),
        (inks.underflow, "underflow (subnormal)"),
        (inks.not_finite, "nan or inf"),
        (inks.not_measured, "not measured"),
    )
    return [(ink, meaning) for ink, meaning in meanings if ink in cells]


def _sentences(grid: Grid, bands: Bands, metric: str) -> list[str]:
    """Explains rows and columns that are not one layer or one step each."""
    parts = []
    if bands.layers_a_row > 1:
        parts.append(f"rows show bands of {bands.layers_a_row} layers")
    if bands.steps_a_column > 1:
        parts.append(f"columns show bands of {bands.steps_a_column} measured steps")
    sentences = []
    if parts:
        bad = "nan or inf if any value is"
        sentences.append(f"{' and '.join(parts)}: the median of each, {bad}".capitalize() + ".")
    if grid.has_blocks:
        whole = "norm over" if is_norm(metric) else "largest of"
        sentences.append(f"The value of a block is the {whole} all its weights.")
    return sentences
