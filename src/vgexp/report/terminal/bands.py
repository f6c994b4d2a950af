"""Joins neighbouring layers and steps of a grid into bands, so that it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vgexp.quantities import READOUT
from vgexp.report.grid import Grid


@dataclass(frozen=True)
class Bands:
    """A grid small enough to draw."""

    labels: Sequence[str]
    starts: Sequence[int]
    """The first step of each column."""
    values: Sequence[Sequence[float | None]]
    """By row and column: the lower median of what was measured, nan if any is not finite; None:
    nothing was."""
    is_tiny: Sequence[Sequence[bool]]
    layers_a_row: int
    steps_a_column: int


def make_bands(grid: Grid, most_rows: int, most_columns: int) -> Bands:
    """Joins layers, and steps, into bands of one size: at most so many rows and columns.

    The read-out keeps a row of its own. Of an even number of values the lower of the middle two
    counts: it is a value that was measured.
    """
    has_readout = READOUT in grid.labels[-1:]
    num_hidden = len(grid.labels) - has_readout
    layers_a_row = max(1, -(-num_hidden // max(1, most_rows - has_readout)))
    steps_a_column = max(1, -(-len(grid.steps) // most_columns))
    rows = [*_slices(num_hidden, layers_a_row)]
    if has_readout:
        rows.append(slice(num_hidden, num_hidden + 1))
    columns = [*_slices(len(grid.steps), steps_a_column)]
    cells = [[_middle(grid, row, column) for column in columns] for row in rows]
    return Bands(
        labels=[_label(grid.labels[row]) for row in rows],
        starts=[grid.steps[column.start] for column in columns],
        values=[[value for value, _ in row] for row in cells],
        is_tiny=[[is_tiny for _, is_tiny in row] for row in cells],
        layers_a_row=layers_a_row,
        steps_a_column=steps_a_column,
    )


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _middle(grid: Grid, rows: slice, columns: slice) -> tuple[float | None, bool]:
    present = grid.measured_LS[rows, columns]
    if not present.any():
        return None, False
    values = grid.values_LS[rows, columns][present]
    if not np.isfinite(values).all():
        return np.nan, False
    middle = np.argsort(values, kind="stable")[(values.size - 1) // 2]
    return float(values[middle]), bool(grid.is_tiny_LS[rows, columns][present][middle])


def _label(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]}-{labels[-1]}"
