"""Draws long curves with fewer points, without losing any peak."""

from __future__ import annotations

import numpy as np

MOST_POINTS = 4000
"""Of a curve; more than a panel has pixels across."""


def choose_points(y: np.ndarray, most: int = MOST_POINTS) -> np.ndarray:
    """Chooses the points [n] of a curve that are drawn: all, or each stretch's lowest and highest.

    Zeros and infinite values are lows and highs, and so stay.
    """
    if len(y) <= most:
        return np.arange(len(y))
    length = -(-2 * len(y) // most)
    num_stretches = -(-len(y) // length)
    padded = np.full(num_stretches * length, np.nan)
    padded[: len(y)] = y
    stretches = padded.reshape(num_stretches, length)
    starts = np.arange(num_stretches) * length
    low = np.where(np.isnan(stretches), np.inf, stretches).argmin(axis=1)
    high = np.where(np.isnan(stretches), -np.inf, stretches).argmax(axis=1)
    chosen = np.concatenate([[0], starts + low, starts + high, [len(y) - 1]])
    return np.unique(np.minimum(chosen, len(y) - 1))


def lower_medians(values: np.ndarray, together: int) -> np.ndarray:
    """Takes lower medians over so many neighbouring columns [L, S], without what is nan."""
    if together == 1:
        return values
    num_rows, num_columns = values.shape
    padded = np.pad(values, ((0, 0), (0, -num_columns % together)), constant_values=np.nan)
    # What is nan comes last.
    ordered = np.sort(padded.reshape(num_rows, -1, together), axis=2)
    middle = (np.isfinite(ordered).sum(axis=2, keepdims=True) - 1) // 2
    return np.take_along_axis(ordered, np.maximum(middle, 0), axis=2)[..., 0]
