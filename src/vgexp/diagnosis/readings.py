"""Summary metrics that are one value of a column, as their declarations say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vgexp.quantities import NUM_STEPS_AVERAGED, SUMMARY, Reading

Values = NDArray[np.float64]


def read_metrics(tables: Mapping[str, pd.DataFrame | None]) -> dict[str, float | None]:
    """Every metric that declares a reading; None where its column has no value to read."""
    of_split = cache(partial(_rows_of, tables))
    return {
        metric.name: _read(metric.reading, tables.get(metric.reading.table), of_split)
        for metric in SUMMARY.values()
        if metric.reading is not None
    }


def running_means(values: pd.Series | Values) -> Values:
    """Means over 20 values in a row, each summed anew, so that a huge value spoils no other."""
    numbers: Values = np.asarray(values, dtype="float64")
    if not numbers.size:
        return numbers
    window = min(NUM_STEPS_AVERAGED, numbers.size)
    with np.errstate(all="ignore"):
        means = np.lib.stride_tricks.sliding_window_view(numbers, window).mean(axis=1)
    return np.asarray(means, dtype="float64")


def _rows_of(tables: Mapping[str, pd.DataFrame | None], name: str, split: str) -> Any:
    """Which rows of a table are of a split: an index of NumPy's."""
    table = tables[name]
    return slice(None) if table is None or not split else (table["split"] == split).to_numpy(bool)


def _read(
    reading: Reading, table: pd.DataFrame | None, of_split: Callable[[str, str], Any]
) -> float | None:
    if table is None or reading.column not in table.columns:
        return None
    values: Values = table[reading.column].to_numpy(dtype="float64", na_value=np.nan)
    numbers = values[of_split(reading.table, reading.split)]
    if reading.of_means:
        numbers = running_means(numbers)
    return _PICKS[reading.pick](numbers) if numbers.size else None


def _finite(values: Values) -> Any:
    kept = values[np.isfinite(values)]
    return kept if kept.size else np.array([np.nan])


def _mean(values: Values) -> float:
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else np.nan


_PICKS: Mapping[str, Callable[[Values], float]] = {
    "first": lambda values: float(values[0]),
    "last": lambda values: float(values[-1]),
    "lowest": lambda values: float(_finite(values).min()),
    "highest": lambda values: float(_finite(values).max()),
    "mean": _mean,
}
