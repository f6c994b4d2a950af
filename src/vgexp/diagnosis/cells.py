"""Cells and metrics that somebody else wrote: what is of the wrong type was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from vgexp.quantities import SUMMARY, TABLES, VERDICTS

_SIGNALS = ("vanishing", "exploding", "steady")
_WORDS: Mapping[str, tuple[str, ...]] = {
    "signal": _SIGNALS,
    "signal_last": _SIGNALS,
    "verdict": tuple(VERDICTS),
}
"""Metrics that are one of few words."""
_LISTS = ("compared", "unmeasured_ends")


def with_numbers(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The same table, whose cells of declared columns of numbers are numbers, or nan.

    A column of nullable integers that has empty cells becomes one of float64, but for the layer's
    number, which weights beside the main path have none of.
    """
    changed: dict[str, Any] = {}
    types = dict(zip(table.columns, table.dtypes, strict=True))
    for column in TABLES.get(name, ()):
        if column.kind == "text" or column.name not in types or is_plain(types[column.name]):
            continue
        cells = table[column.name]
        if not pd.api.types.is_numeric_dtype(cells):
            cells = pd.to_numeric(cells, errors="coerce")
        is_nullable = pd.api.types.is_extension_array_dtype(cells) and column.name != "layer"
        if is_nullable and cells.isna().any():
            cells = pd.Series(cells.to_numpy(dtype="float64", na_value=np.nan), cells.index)
        if cells is not table[column.name]:
            changed[column.name] = cells
    return table.assign(**changed) if changed else table


def is_plain(dtype: object) -> bool:
    """Whether each cell of such a column is a number of NumPy's."""
    return isinstance(dtype, np.dtype) and dtype.kind in "iuf"


def typed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics without those of the wrong type: text for a number, or an unknown word."""
    return {name: value for name, value in metrics.items() if _is_usable(name, value)}


def _is_usable(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name in _WORDS:
        return value in _WORDS[name]
    plain = name.removesuffix("_last") if name not in SUMMARY else name
    if plain in _LISTS:
        return isinstance(value, list | tuple) and all(isinstance(each, Integral) for each in value)
    if plain not in SUMMARY:
        return True
    if SUMMARY[plain].kind == "text":
        return isinstance(value, str)
    if SUMMARY[plain].kind == "int":
        return isinstance(value, Integral) and not isinstance(value, bool)
    return isinstance(value, Real) and not isinstance(value, bool)
