"""Finds the cells that have a value: in a frame NaN is both nan and an empty cell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype

from vgexp import tables
from vgexp.tables import HAS_VALUE


def find_values(folder: Path, table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Says where the cells are not empty; the file is read again for columns that have NaN.

    Args:
        frame: columns of that table, as they were read before.
    """
    has_value = frame.notna()
    doubtful = [str(n) for n in frame if is_float_dtype(frame[n]) and not has_value[n].all()]
    if doubtful and tables.may_hold_nan(folder, table):
        is_empty = tables.empty_cells(folder, table, doubtful)
        # By now a run that is going on may have written further rows.
        has_value[doubtful] = ~is_empty.reindex(frame.index, fill_value=True)
    return has_value


def put_inf_for_nan(frame: pd.DataFrame, has_value: pd.DataFrame) -> None:
    """Replaces each value that is nan, so that only empty cells are NaN."""
    is_nan = frame.isna() & has_value
    for name in is_nan.columns[is_nan.any()]:
        frame.loc[is_nan[name], name] = np.inf


def split_by_metric(
    frame: pd.DataFrame, has_value: pd.DataFrame, keys: Collection[str], beside: Collection[str]
) -> Mapping[str, pd.DataFrame]:
    """Splits a frame by metric: the keys, the metric, what stands beside it, and `has_value`.

    Args:
        frame: all of these columns.
        has_value: of each metric.
        beside: columns that the frame may lack.
    """
    further = [name for name in beside if name in frame]
    return {
        metric: frame[list(dict.fromkeys((*keys, metric, *further)))].assign(
            **{HAS_VALUE: has_value[metric]}
        )
        for metric in map(str, has_value)
    }
