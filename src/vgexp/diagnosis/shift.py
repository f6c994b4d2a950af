"""Internal covariate shift: how far the inputs of layers move in training (Ioffe & Szegedy 2015).

Take the normal distributions with the mean m and the standard deviation s that z (or h) had in two
updates, over examples and units. The shift between the updates is the 2-Wasserstein distance of
these distributions over the earlier s: sqrt((m' - m)^2 + (s' - s)^2) / s. Every update has a batch
of its own, so the shift is not 0 if nothing moves: a run with `optimizer.lr=0` shows how large the
part of the batches is.

Axes: S steps with z and h measured, P pairs of them, L hidden layers of the main path.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vgexp.diagnosis.signal import main_path

_Array = NDArray[np.float64]
_Rows = NDArray[np.intp]


def shift_metrics(layers: pd.DataFrame) -> dict[str, float]:
    """The metrics `shift_*` and `drift_*`.

    `shift_*` is the shift from an update to the next, `drift_*` that from the first measured update
    to the last; `*_preact` is about z, `*_act` about h, which is what the next layer reads. They
    are means over layers, and `shift_*` also over the pairs of successive updates of which both
    were measured: all if `probe.activations_every` is 1. Values that are not finite are left out;
    where none is left, the metric is nan.
    """
    measured = layers[layers["preact_std"].notna()]
    steps_S = np.sort(measured["step"].unique())
    next_P = np.flatnonzero(np.diff(steps_S) == 1)
    end_P = np.arange(len(steps_S))[-1:] if len(steps_S) > 1 else next_P
    places = _places(measured, steps_S)
    found = {}
    for of in ("preact", "act"):
        mean_SL, std_SL = (
            _by_step(measured[f"{of}_{moment}"], places) for moment in ("mean", "std")
        )
        found[f"shift_{of}"] = _distance(mean_SL, std_SL, next_P, next_P + 1)
        found[f"drift_{of}"] = _distance(mean_SL, std_SL, 0 * end_P, end_P)
    return found


class _Places(NamedTuple):
    """Where the rows of a table stand in an array [S, L], in the order of the main path."""

    rows: _Rows
    """The rows that stand in it at all."""
    step: _Rows
    layer: _Rows
    shape: tuple[int, int]


def _places(measured: pd.DataFrame, steps_S: NDArray[Any]) -> _Places:
    path = pd.Index(main_path(measured.drop_duplicates("name"))["name"])
    layer = path.get_indexer(measured["name"])
    rows = np.flatnonzero(layer >= 0)
    step = np.searchsorted(steps_S, measured["step"].to_numpy()[rows])
    return _Places(rows, step, layer[rows], (len(steps_S), len(path)))


def _by_step(column: pd.Series, places: _Places) -> _Array:
    """A column as an array [S, L]; nan where it has no row."""
    values_SL = np.full(places.shape, np.nan)
    values_SL[places.step, places.layer] = column.to_numpy(dtype="float64")[places.rows]
    return values_SL


def _distance(mean_SL: _Array, std_SL: _Array, from_P: _Rows, to_P: _Rows) -> float:
    with np.errstate(all="ignore"):
        moved_PL = np.hypot(mean_SL[to_P] - mean_SL[from_P], std_SL[to_P] - std_SL[from_P])
        distance_PL = moved_PL / std_SL[from_P]
    finite = distance_PL[np.isfinite(distance_PL)]
    return float(finite.mean()) if finite.size else math.nan
