"""A column of `layers.csv` as layers by steps: what maps, profiles and curves over depth show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vgexp.errors import unknown
from vgexp.records import READOUT

_KEYS = ("step", "layer", "name", "kind")
NORMS = ("weight_norm", "grad_norm", "grad_norm_clipped")
"""Columns of which a block has the norm over all its weights."""


def grid(layers: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Layers 1..L of the main path, then the read-out (rows), by measured steps (columns).

    A cell is the value of the layer's first weight, as in every figure of the main path. A block
    (`stream`) has no weight: of a norm it gets the root of the squares summed over the block's
    weights, of other columns of weights the largest. Steps at which no layer has a value are left
    out; cells without one are NaN. Weights that no forward pass used have no layer and no row.

    Args:
        layers: rows as in `layers.csv`.

    Raises:
        QuestionError: no such column of numbers.
    """
    numeric = [name for name in layers.columns if name not in _KEYS]
    if metric not in numeric:
        raise unknown("metric of layers.csv", metric, numeric)
    rows = layers[[*_KEYS, metric]].dropna(subset="layer")
    rows = rows.assign(layer=rows["layer"].astype("int64"))
    first = rows.drop_duplicates(["step", "layer"])
    values = first.set_index(["layer", "step"])[metric].astype("float64")
    if (first["kind"] == "stream").any():
        values = values.fillna(of_blocks(rows, metric))
    table = values.unstack("step").sort_index()  # noqa: PD010 (a pivot drops layers without values)
    table = table.dropna(axis="columns", how="all")
    readouts = first.loc[first["kind"] == READOUT, "layer"].unique()
    names = [READOUT if number in readouts else str(number) for number in table.index]
    return table.set_axis(pd.Index(names, name="layer"), axis=0)


def numbers(table: pd.DataFrame) -> np.ndarray:
    """The layers' numbers of a grid's rows [L + 1]; the read-out's is the next."""
    last = 0
    found = []
    for name in table.index:
        last = last + 1 if name == READOUT else int(name)
        found.append(last)
    return np.array(found, dtype="int64")


def first_middle_last(steps: Sequence[Any]) -> list[int]:
    """Of measured steps the first, the one nearest to the middle of training, and the last."""
    if not len(steps):
        return []
    ordered = sorted(int(step) for step in steps)
    middle = (ordered[0] + ordered[-1]) / 2
    nearest = min(ordered, key=lambda step: (abs(step - middle), step))
    return sorted({ordered[0], nearest, ordered[-1]})


def of_blocks(rows: pd.DataFrame, metric: str) -> pd.Series:
    """(layer, step) -> what the layer's weights have together; NaN where none has a value.

    The norm over all of them of a norm, else the largest magnitude; inf where one is infinite.
    """
    values = rows.set_index(["layer", "step"])[metric].astype("float64")
    largest = values.abs().groupby(level=["layer", "step"]).max()
    if metric not in NORMS:
        return largest
    # Squares of what is as small as a dead gradient are not to be taken as they are.
    scale = largest.where((largest > 0) & np.isfinite(largest), 1.0)
    shares = values / scale.reindex(values.index)
    squares = shares.pow(2).groupby(level=["layer", "step"]).sum(min_count=1)
    return squares.pow(0.5) * scale
