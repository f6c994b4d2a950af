"""A metric by layer and measured step, and the bands that make it fit.

Axes: L layers (rows), S measured steps (columns).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vgexp.records import READOUT
from vgexp.report.grid import of_blocks


@dataclass(frozen=True)
class Grid:
    """One value a layer and step at which any layer was measured; layer 1 first, read-out last."""

    labels: Sequence[str]
    steps: Sequence[int]
    values_LS: NDArray[np.float64]
    """nan where nothing was measured, and where what was measured is nan."""
    measured_LS: NDArray[np.bool_]
    is_tiny_LS: NDArray[np.bool_]
    """Whether a value is below the smallest normal number, but not 0."""
    has_blocks: bool = False
    """Whether a row is a block, its value made of all its weights."""


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


def grid_of(frame: pd.DataFrame, metric: str, smallest: pd.Series | float = 0.0) -> Grid:
    """The metric of the main path and the read-out.

    A block whose stream has no such value (it has no weight) has that of its weights: the norm
    over all of them of a norm, else the largest.

    Args:
        frame: `step`, `layer`, `kind`, the metric, and `has_value`: whether its cell is not empty.
        smallest: normal number of the metric, alone or by step.
    """
    measured = frame.loc[frame["has_value"], "step"]
    rows = frame[frame["layer"].notna() & frame["step"].isin(measured.unique())]
    path, has_blocks = _path(rows, metric)
    steps, columns = np.unique(path["step"].to_numpy("int64"), return_inverse=True)
    is_readout = (path["kind"] == READOUT).to_numpy(bool)
    numbers = path["layer"].to_numpy("int64")
    # A read-out is last, whatever its number is.
    keys = np.where(is_readout, np.iinfo("int64").max, numbers)
    layers, places = np.unique(keys, return_inverse=True)
    shape = (layers.size, steps.size)
    values_LS, measured_LS = np.full(shape, np.nan), np.zeros(shape, bool)
    values_LS[places, columns] = path[metric].to_numpy("float64")
    measured_LS[places, columns] = path["has_value"].to_numpy(bool)
    least_S = np.broadcast_to(_by_step(smallest, steps), steps.shape)
    has_readout = bool(is_readout.any())
    hidden = [str(number) for number in layers[: layers.size - has_readout]]
    return Grid(
        labels=hidden + [READOUT] * has_readout,
        steps=steps.tolist(),
        values_LS=values_LS,
        measured_LS=measured_LS,
        is_tiny_LS=(np.abs(values_LS) < least_S) & (values_LS != 0),
        has_blocks=has_blocks,
    )


def banded(grid: Grid, most_rows: int, most_columns: int) -> Bands:
    """At most so many rows and columns: neighbouring layers, and steps, in bands of one size.

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


def _path(rows: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, bool]:
    """One row a layer and step; whether blocks are among them."""
    is_readout = rows["kind"] == READOUT
    readout = rows[is_readout].drop_duplicates("step")
    hidden = rows[~is_readout]
    path = hidden.drop_duplicates(["step", "layer"])
    lacks = (path["kind"] == "stream") & ~path["has_value"]
    if lacks.any():
        # What has a value that is not a number is not finite.
        whole = of_blocks(hidden[hidden["has_value"]].fillna({metric: np.inf}), metric)
        keys = pd.MultiIndex.from_frame(path.loc[lacks, ["layer", "step"]])
        path = path.copy()
        path.loc[lacks, metric] = whole.reindex(keys).to_numpy("float64")
        path.loc[lacks, "has_value"] = keys.isin(whole.index)
    return pd.concat([path, readout]), bool(lacks.any())


def _by_step(smallest: pd.Series | float, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    if isinstance(smallest, float):
        return np.array(smallest)
    return smallest.reindex(steps).ffill().bfill().fillna(0.0).to_numpy("float64")


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
