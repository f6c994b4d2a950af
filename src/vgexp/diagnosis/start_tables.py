"""Metrics of the tables that `vgexp signal` makes of one network: `jacobian.csv`, `paths.csv` and
`shattering.csv`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

_CONSTANT = 1 - 1e-9
"""Cosine above which two gradients are equal up to rounding."""


def start_table_metrics(
    tables: Mapping[str, pd.DataFrame], num_layers: int | None = None
) -> dict[str, float]:
    """The metrics of those of the tables that are there; nan where a table has no rows for them.

    Args:
        tables: name -> rows of one seed.
        num_layers: L, the last layer before the read-out; None to take the last of the table.
    """
    metrics: dict[str, float] = {}
    for name, make in _METRICS.items():
        if name in tables:
            metrics |= make(tables[name], num_layers)
    return metrics


def _jacobian(table: pd.DataFrame, num_layers: int | None) -> dict[str, float]:
    rows = table.sort_values("layer")
    if num_layers is not None:
        rows = rows[rows["layer"] <= num_layers]
    wanted = {
        "jacobian_largest_log10": "product_largest_log10",
        "jacobian_smallest_log10": "product_smallest_log10",
        "jacobian_bound_log10": "product_bound_log10",
        "jacobian_effective_rank": "product_effective_rank",
        "lyapunov_largest": "lyapunov_largest",
    }
    if not len(rows):
        return dict.fromkeys(wanted, np.nan)
    return {metric: float(rows[column].iloc[-1]) for metric, column in wanted.items()}


def _paths(table: pd.DataFrame, _: int | None) -> dict[str, float]:
    length, share = (table[name].to_numpy("float64") for name in ("length", "share"))
    return {
        "path_length": float(length @ share) if len(table) else np.nan,
        "num_branches": float(length.max()) if len(table) else np.nan,
    }


def _shattering(table: pd.DataFrame, _: int | None) -> dict[str, float]:
    rows = table[table["inputs"] == "data"].sort_values("layer")
    values = rows["correlation"].to_numpy("float64")
    if not len(values):
        values = np.array([np.nan])
    # Behind the last slope the outputs are linear: there the cosine is 1 whatever the net is.
    varying = values[values < _CONSTANT]
    last = varying[-1] if len(varying) else values[-1]
    return {"gradient_correlation": float(values[0]), "gradient_correlation_deepest": float(last)}


_METRICS: Mapping[str, Callable[[pd.DataFrame, int | None], dict[str, float]]] = {
    "jacobian": _jacobian,
    "paths": _paths,
    "shattering": _shattering,
}
"""Table -> the function that computes its metrics."""
