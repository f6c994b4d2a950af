"""Arranges a column of `layers.csv` as layers by steps, for maps, profiles and curves.

Axes: L layers (rows), S measured steps (columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vgexp.diagnosis.signal import smallest_held
from vgexp.errors import unknown
from vgexp.quantities import READOUT, column_of
from vgexp.tables import HAS_VALUE

LARGEST_ENTRY = "grad_max"
_OF_GRADIENTS = ("grad_norm", LARGEST_ENTRY)
_KEYS = ("step", "layer", "name", "kind", HAS_VALUE)
# Measured with the gradient, and a number even where that is nan.
_WITNESS = "grad_zero_fraction"


@dataclass(frozen=True)
class Grid:
    """One value for each layer and step; layer 1 first, the read-out last."""

    labels: Sequence[str]
    """Numbers of the layers, and `readout`."""
    steps: Sequence[int]
    values_LS: NDArray[np.float64]
    """nan where nothing was measured, and where what was measured is nan."""
    measured_LS: NDArray[np.bool_]
    is_tiny_LS: NDArray[np.bool_]
    """Whether a value that is not 0 underflowed."""
    has_blocks: bool = False
    """Whether a row is a block, its value made of all its weights."""

    def table(self) -> pd.DataFrame:
        """The values by label and step: NaN where nothing was measured, inf where it was nan."""
        values = np.where(self.measured_LS & np.isnan(self.values_LS), np.inf, self.values_LS)
        return pd.DataFrame(
            values,
            index=pd.Index(list(self.labels), name="layer", dtype="object"),
            columns=pd.Index(list(self.steps), name="step", dtype="int64"),
        )


def grid(layers: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Arranges a metric as a DataFrame: layers by the steps at which some layer has a value.

    Raises:
        QuestionError: no such column of numbers.
    """
    return grid_of(layers, metric).table()


def grid_of(
    layers: pd.DataFrame,
    metric: str,
    dtype: str | None = None,
    loss_scale: pd.Series | None = None,
    num_examples: int = 1,
    every_step: bool = False,
) -> Grid:
    """Arranges a metric of the main path and the read-out, and says where it underflowed.

    Args:
        dtype: of the run; None: not known, and nothing underflows.
        loss_scale: by step; None: 1.
        num_examples: of an update.
        every_step: steps with rows but without a value keep their column as well.

    Raises:
        QuestionError: no such column of numbers, or no such dtype.
    """
    path, has_blocks = path_of(layers, metric)
    path["is_tiny"] = underflows(layers, metric, dtype, loss_scale, num_examples, path)
    if not every_step:
        path = path[path["step"].isin(path.loc[path[HAS_VALUE], "step"].unique())]
    steps_S, columns_R = np.unique(path["step"].to_numpy("int64"), return_inverse=True)
    is_readout = (path["kind"] == READOUT).to_numpy(bool)
    # A read-out is last, whatever its number is.
    keys = np.where(is_readout, np.iinfo("int64").max, path["layer"].to_numpy("int64"))
    numbers_L, rows_R = np.unique(keys, return_inverse=True)
    shape = (numbers_L.size, steps_S.size)
    values_LS = np.full(shape, np.nan)
    measured_LS, is_tiny_LS = np.zeros(shape, bool), np.zeros(shape, bool)
    values_LS[rows_R, columns_R] = path[metric].to_numpy("float64")
    measured_LS[rows_R, columns_R] = path[HAS_VALUE].to_numpy(bool)
    is_tiny_LS[rows_R, columns_R] = path["is_tiny"].to_numpy(bool)
    has_readout = bool(is_readout.any())
    hidden = [str(number) for number in numbers_L[: numbers_L.size - has_readout]]
    labels = hidden + [READOUT] * has_readout
    return Grid(labels, steps_S.tolist(), values_LS, measured_LS, is_tiny_LS, has_blocks)


def path_of(layers: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, bool]:
    """Selects a row for each step and layer of the main path, then one a step for the read-out.

    Returns them with columns `step`, `layer`, `kind`, the metric, `has_value`, and whether a block
    is among them.

    A layer's first weight counts. A block (`stream`) without a value, for it has no weight, has
    that of its weights: of a norm the root of the summed squares, else the largest magnitude.
    Weights on branches, and those that no forward pass used, have no layer and no row.

    A frame cannot tell nan from an empty cell unless a column `has_value` says so. Without it,
    what is NaN was not measured; but a gradient was, where its share of zeros is a number.

    Raises:
        QuestionError: no such column of numbers.
    """
    numeric = [name for name in layers.columns if name not in _KEYS]
    if metric not in numeric:
        raise unknown("metric of layers.csv", metric, numeric)
    rows = layers[["step", "layer", "kind", metric]].assign(has_value=_has_value(layers, metric))
    rows = rows[rows["layer"].notna()]
    rows = rows.assign(layer=rows["layer"].astype("int64"), **{metric: rows[metric].astype(float)})
    is_readout = rows["kind"] == READOUT
    hidden = rows[~is_readout]
    path = hidden.drop_duplicates(["step", "layer"])
    lacks = (path["kind"] == "stream") & ~path[HAS_VALUE]
    if lacks.any():
        # What has a value that is not a number is not finite.
        whole = of_blocks(hidden[hidden[HAS_VALUE]].fillna({metric: np.inf}), metric)
        keys = pd.MultiIndex.from_frame(path.loc[lacks, ["layer", "step"]])
        path = path.copy()
        path.loc[lacks, metric] = whole.reindex(keys).to_numpy("float64")
        path.loc[lacks, HAS_VALUE] = keys.isin(whole.index)
    readout = rows[is_readout].drop_duplicates("step")
    return pd.concat([path, readout], ignore_index=True), bool(lacks.any())


def underflows(
    layers: pd.DataFrame,
    metric: str,
    dtype: str | None,
    loss_scale: pd.Series | None = None,
    num_examples: int = 1,
    path: pd.DataFrame | None = None,
) -> NDArray[np.bool_]:
    """Says which rows of `path_of` hold a value that is not 0 and underflowed.

    The arguments are those of `grid_of`, and `path` is what `path_of` gives, where it is known.

    A gradient where its largest entry, which is the last to, was below `smallest_held`: by
    autocast it is computed in half precision, as large as the loss scale made it. `delta_rms`
    where dL/dz was. Of other metrics it is not known.
    """
    if path is None:
        path, _ = path_of(layers, metric)
    if dtype is None or metric not in (*_OF_GRADIENTS, "delta_rms"):
        return np.zeros(len(path), bool)
    largest = values = path[metric].abs()
    if metric in _OF_GRADIENTS and LARGEST_ENTRY in layers.columns:
        entries, _ = path_of(layers.drop(columns=HAS_VALUE, errors="ignore"), LARGEST_ENTRY)
        # Where it was not measured the norm tells, which is no smaller.
        largest = entries[LARGEST_ENTRY].fillna(values)
    count = num_examples if metric == "delta_rms" else 1
    limits = smallest_held(dtype, path["step"], loss_scale, count)
    return ((largest < limits) & (values > 0)).to_numpy(bool)


def numbers(table: pd.DataFrame) -> np.ndarray:
    """Returns the numbers [L + 1] of the layers in a grid's rows; the read-out has the next."""
    last = 0
    found = []
    for name in table.index:
        last = last + 1 if name == READOUT else int(name)
        found.append(last)
    return np.array(found, dtype="int64")


def first_middle_last(steps: Sequence[Any]) -> list[int]:
    """Returns the first measured step, the one nearest to the middle, and the last."""
    if not len(steps):
        return []
    ordered = sorted(int(step) for step in steps)
    middle = (ordered[0] + ordered[-1]) / 2
    nearest = min(ordered, key=lambda step: (abs(step - middle), step))
    return sorted({ordered[0], nearest, ordered[-1]})


def of_blocks(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Combines the values of a layer's weights, by layer and step; NaN where none has a value.

    The norm over all of them of a norm, else the largest magnitude; inf where one is infinite.
    """
    values = rows.set_index(["layer", "step"])[metric].astype("float64")
    largest = values.abs().groupby(level=["layer", "step"]).max()
    if not is_norm(metric):
        return largest
    # Squares of what is as small as a dead gradient are not to be taken as they are.
    scale = largest.where((largest > 0) & np.isfinite(largest), 1.0)
    shares = values / scale.reindex(values.index)
    squares = shares.pow(2).groupby(level=["layer", "step"]).sum(min_count=1)
    return squares.pow(0.5) * scale


def is_norm(metric: str) -> bool:
    """Whether a block has the norm of a column over all its weights, not the largest of them."""
    return column_of("layers", metric).of_block == "norm"


def _has_value(layers: pd.DataFrame, metric: str) -> pd.Series:
    if HAS_VALUE in layers.columns:
        return layers[HAS_VALUE].astype(bool)
    has_value = layers[metric].notna()
    if metric.startswith("grad_") and _WITNESS in layers.columns:
        has_value |= layers[_WITNESS].notna()
    return has_value
