"""Metrics of the loss landscape, from `curvature.csv`.

A loss may fail to fall for three reasons. The signal is lost on its way back. The landscape is flat
although the signal arrives. Or the step is too large: the sharpness, which is the largest Hessian
eigenvalue, is above the stability limit of this learning rate (Cohen 2021).
"""

from __future__ import annotations

import statistics

import numpy as np
import pandas as pd

FLAT_BELOW = 0.01
"""Largest |eigenvalue| over the stability limit below which the landscape is called flat: a step a
hundred times as large would be stable."""

_METRICS = ("sharpness_first", "sharpness_last", "sharpness_over_limit", "curvature_over_limit_max")


def landscape_metrics(curvature: pd.DataFrame | None) -> dict[str, float]:
    """The metrics `sharpness_*` and `curvature_over_limit_max`; nan where they are not known.

    Rows that are not finite are left out. `sharpness_over_limit` is the median over the measured
    steps, and for an even number of steps the lower of the two in the middle. It is about 1 at the
    edge of stability.
    """
    metrics = dict.fromkeys(_METRICS, np.nan)
    if curvature is None:
        return metrics
    columns = curvature[["hessian_max", "hessian_min", "stability_limit"]].astype("float64")
    rows = columns[np.isfinite(columns[["hessian_max", "hessian_min"]]).all(axis=1)]
    if not len(rows):
        return metrics
    metrics["sharpness_first"] = float(rows["hessian_max"].iloc[0])
    metrics["sharpness_last"] = float(rows["hessian_max"].iloc[-1])
    known = rows[rows["stability_limit"] > 0]
    if len(known):
        sharpness = known["hessian_max"] / known["stability_limit"]
        largest = np.maximum(known["hessian_max"].abs(), known["hessian_min"].abs())
        metrics["sharpness_over_limit"] = float(statistics.median_low(sharpness))
        metrics["curvature_over_limit_max"] = float((largest / known["stability_limit"]).max())
    return metrics
