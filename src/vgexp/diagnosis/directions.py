"""What a network at initialisation does to directions: the figures of `jacobian.csv`, `paths.csv`
and `shattering.csv`, of one initialisation, and words for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

_CONSTANT = 1 - 1e-9
"""Cosine from which on two gradients are the same, but for rounding."""


def direction_figures(
    tables: Mapping[str, pd.DataFrame], num_layers: int | None = None
) -> dict[str, float]:
    """The figures of those tables that are there; nan where a table has no such row.

    Args:
        tables: name -> rows of one seed.
        num_layers: L, the last layer before the read-out; None: the table's last is taken.
    """
    figures: dict[str, float] = {}
    for name, make in _FIGURES.items():
        if name in tables:
            figures |= make(tables[name], num_layers)
    return figures


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
    return {figure: float(rows[column].iloc[-1]) for figure, column in wanted.items()}


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


_FIGURES: Mapping[str, Callable[[pd.DataFrame, int | None], dict[str, float]]] = {
    "jacobian": _jacobian,
    "paths": _paths,
    "shattering": _shattering,
}
"""Table -> its figures."""
