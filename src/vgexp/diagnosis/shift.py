"""Internal covariate shift: how far what a layer sees moves in training (Ioffe & Szegedy 2015).

The distance between two updates is that of the normal distributions of the mean m and the standard
deviation s that z (or h) had in them, over examples and units, in units of the earlier s:
sqrt((m' - m)^2 + (s' - s)^2) / s, the 2-Wasserstein distance over s. Every update has a batch of
its own, so that it is not 0 where nothing moves: `optimizer.lr=0` tells what batches alone make.

Axes: S steps with z and h measured, P pairs of them, L hidden layers of the main path.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vgexp.diagnosis.signal import main_path

_Array = NDArray[np.float64]
_Rows = NDArray[np.intp]


def shifts(layers: pd.DataFrame) -> dict[str, float]:
    """`shift_*` from an update to the next, `drift_*` from the first to the last measured.

    `_preact` of z; `_act` of h, which is what the next layer reads. Means over layers, and for
    `shift_*` over the updates that were measured and so was the next: all where
    `probe.activations_every` is 1. What is not finite is left out; nan where nothing is left.
    """
    measured = layers[layers["preact_std"].notna()]
    steps_S = np.sort(measured["step"].unique())
    next_P = np.flatnonzero(np.diff(steps_S) == 1)
    end_P = np.arange(len(steps_S))[-1:] if len(steps_S) > 1 else next_P
    found = {}
    for of in ("preact", "act"):
        mean_SL, std_SL = (_by_step(measured, f"{of}_{moment}") for moment in ("mean", "std"))
        found[f"shift_{of}"] = _distance(mean_SL, std_SL, next_P, next_P + 1)
        found[f"drift_{of}"] = _distance(mean_SL, std_SL, 0 * end_P, end_P)
    return found


def _by_step(measured: pd.DataFrame, column: str) -> _Array:
    """[S, L], by the rows of the main path."""
    path = main_path(measured.drop_duplicates("name"))["name"]
    table = measured.pivot_table(index="step", columns="name", values=column, dropna=False)
    return table.reindex(columns=path).to_numpy(dtype="float64")


def _distance(mean_SL: _Array, std_SL: _Array, from_P: _Rows, to_P: _Rows) -> float:
    with np.errstate(all="ignore"):
        moved_PL = np.hypot(mean_SL[to_P] - mean_SL[from_P], std_SL[to_P] - std_SL[from_P])
        distance_PL = moved_PL / std_SL[from_P]
    finite = distance_PL[np.isfinite(distance_PL)]
    return float(finite.mean()) if finite.size else math.nan
