"""The column of `layers.csv` that the page of a run shows as a map."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from vgexp.errors import QuestionError, unknown
from vgexp.past import PastRun
from vgexp.quantities import LAYERS
from vgexp.report.grid import LARGEST_ENTRY, Grid, grid_of


def require_metric(run: PastRun, metric: str) -> None:
    """Checks that a name is that of a column of numbers.

    Raises:
        QuestionError: it is not; with the nearest.
    """
    kinds = {column.name: column.kind for column in LAYERS}
    if kinds.get(metric) == "float":
        return
    further = sorted({*run.columns("layers")} - kinds.keys())
    if metric not in further:
        numbers = [name for name, kind in kinds.items() if kind == "float"]
        raise unknown("metric of layers.csv", metric, [*numbers, *further])
    if not run.is_numeric("layers", metric):
        raise QuestionError(f"metric {metric} is a text\nallowed: a column of numbers")


def layers_of(run: PastRun, shown: str, *others: str) -> Mapping[str, pd.DataFrame]:
    """The metric that is shown, and others -> its rows, as `PastRun.layers` has them.

    Beside a gradient's norm stands its largest entry, which tells where it underflowed.
    """
    beside = [LARGEST_ENTRY] if shown == "grad_norm" else []
    return run.layers(sorted({shown, *others}), beside)


def make_grid(run: PastRun, frame: pd.DataFrame, metric: str) -> Grid:
    """Layers by steps, of a frame of `layers_of`.

    Where the dtype or the number of examples is not known, nothing of it underflows.
    """
    dtype, num_examples = run.dtype, 1
    if run.config is not None:
        num_examples = run.config.data.batch_size * run.config.train.accumulate
    elif metric == "delta_rms":
        dtype = None
    return grid_of(frame, metric, dtype, run.loss_scales, num_examples)


def num_without_layer(run: PastRun, frame: pd.DataFrame) -> int:
    """Counts the weights that have rows but no layer: those on branches, or that no pass used."""
    if not frame["layer"].isna().any():
        return 0
    names = run.table("layers", ["layer", "name"])
    return 0 if names is None else int(names.loc[names["layer"].isna(), "name"].nunique())
