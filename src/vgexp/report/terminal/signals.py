"""Plots the backward signal of a run over depth, and over time of a recurrent network."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vgexp.report.grid import first_middle_last
from vgexp.report.terminal.curve import MARKS, Plot, Points
from vgexp.report.terminal.scale import centred_log_scale

_STATE = ".h"
_LEAST_RATIO = 10.0
"""The scale of a steady signal spans as much."""


def against_depth(frame: pd.DataFrame) -> Plot | None:
    """Plots delta_rms of the hidden layers at the first, middle and last step; None: there is none.

    Args:
        frame: `step`, `layer`, `kind`, `delta_rms`, `has_value`.
    """
    kept = frame[frame["has_value"] & frame["layer"].notna() & (frame["kind"] != "readout")]
    path = kept.drop_duplicates(["step", "layer"])
    return _plot(path, "layer", "Backward signal (delta_rms) against depth")


def against_time(frame: pd.DataFrame) -> Plot | None:
    """Plots delta_rms of h of the last stacked layer at the same steps; None: there is no row.

    Args:
        frame: `step`, `layer`, `name`, `t`, `delta_rms` of `time.csv`.
    """
    states = frame[frame["name"].str.endswith(_STATE, na=False)]
    states = states[states["layer"] == states["layer"].max()]
    if not len(states):
        return None
    name = states["name"].iloc[0]
    return _plot(states, "t", f"Backward signal (delta_rms) of {name} against time")


def _plot(rows: pd.DataFrame, x: str, title: str) -> Plot | None:
    steps = first_middle_last(rows["step"].unique().tolist())
    if not steps:
        return None
    points = [
        Points(f"step {step}", _numbers(rows, step, x), _numbers(rows, step, "delta_rms"), mark)
        for step, mark in zip(steps, MARKS, strict=False)
    ]
    every_x = np.concatenate([part.x for part in points])
    scale = centred_log_scale(np.concatenate([part.y for part in points]), _LEAST_RATIO)
    return Plot(title, x, points, scale, float(every_x.min()), float(every_x.max()))


def _numbers(rows: pd.DataFrame, step: int, name: str) -> NDArray[np.float64]:
    return rows.loc[rows["step"] == step, name].to_numpy("float64")
