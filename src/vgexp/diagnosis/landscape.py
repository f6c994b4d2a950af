"""How the loss bends, of `curvature.csv`: which of three kinds of flat loss it is.

A loss that does not fall may have lost its signal on the way back, lie on ground that is flat
though the signal arrives, or be stepped over: the largest Hessian eigenvalue, the sharpness, is
above what an update of this size bears (Cohen 2021).
"""

from __future__ import annotations

import statistics

import numpy as np
import pandas as pd

FLAT_BELOW = 0.01
"""Largest |eigenvalue| over the stability limit below which the ground is called flat: a step a
hundred times as large would be borne there."""

_FIGURES = ("sharpness_first", "sharpness_last", "sharpness_over_limit", "curvature_over_limit_max")


def landscape_figures(curvature: pd.DataFrame | None) -> dict[str, float]:
    """The figures `sharpness_*` and `curvature_over_limit_max`; nan without such a table, and where
    no limit is known.

    Rows that are not finite are left out. `sharpness_over_limit` is the median over the measured
    steps (of an even number the lower of the two in the middle): at the edge of stability it is
    about 1.
    """
    figures = dict.fromkeys(_FIGURES, np.nan)
    if curvature is None:
        return figures
    columns = curvature[["hessian_max", "hessian_min", "stability_limit"]].astype("float64")
    rows = columns[np.isfinite(columns[["hessian_max", "hessian_min"]]).all(axis=1)]
    if not len(rows):
        return figures
    figures["sharpness_first"] = float(rows["hessian_max"].iloc[0])
    figures["sharpness_last"] = float(rows["hessian_max"].iloc[-1])
    known = rows[rows["stability_limit"] > 0]
    if len(known):
        sharpness = known["hessian_max"] / known["stability_limit"]
        largest = np.maximum(known["hessian_max"].abs(), known["hessian_min"].abs())
        figures["sharpness_over_limit"] = float(statistics.median_low(sharpness))
        figures["curvature_over_limit_max"] = float((largest / known["stability_limit"]).max())
    return figures
