"""Scales of character plots: from a value to a place between two ends, and back."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vgexp.quantities import column_of

LEAST_RATIO = 1e3
"""A log scale spans as much at the least, so that a steady gradient looks steady; attenuation by
more is what `signal` calls vanishing."""
_SMALLEST, _LARGEST = math.ulp(0.0), sys.float_info.max


@dataclass(frozen=True)
class Scale:
    """A scale from `low` to `high`, by the value or by its logarithm."""

    low: float
    high: float
    is_log: bool

    def share(self, value: float) -> float:
        """Returns the place of a finite value: 0 at `low` or below, 1 at `high` or above.

        Where the ends are equal it is 1.
        """
        low, high = self._place(self.low), self._place(self.high)
        if not low < high:
            return 1.0
        if self.is_log and value <= 0:
            return 0.0
        return min(1.0, max(0.0, (self._place(value) - low) / (high - low)))

    def level(self, value: float, num_levels: int) -> int:
        """Returns which of equal parts of the scale a value is in, from 0."""
        return min(num_levels - 1, int(self.share(value) * num_levels))

    def at(self, share: float) -> float:
        """Returns the value at a place between 0 and 1."""
        if share in (0.0, 1.0):
            return self.high if share else self.low
        low, high = self._place(self.low), self._place(self.high)
        place = low + share * (high - low)
        return float(10**place) if self.is_log else 2 * place

    def _place(self, value: float) -> float:
        # Half, for the distance between two numbers can be larger than any.
        return math.log10(value) if self.is_log else value / 2


def log_scale(values: NDArray[np.float64]) -> Scale | None:
    """Makes a log scale over the positive finite values, `LEAST_RATIO` wide or more; or None."""
    kept = values[np.isfinite(values) & (values > 0)]
    if not kept.size:
        return None
    high = float(kept.max())
    return Scale(max(_SMALLEST, min(float(kept.min()), high / LEAST_RATIO)), high, is_log=True)


def centred_log_scale(values: NDArray[np.float64], least_ratio: float) -> Scale | None:
    """Makes a log scale around the positive finite values, `least_ratio` wide or more; or None."""
    kept = values[np.isfinite(values) & (values > 0)]
    if not kept.size:
        return None
    low, high = float(kept.min()), float(kept.max())
    if math.log10(high) - math.log10(low) < math.log10(least_ratio):
        middle, margin = math.sqrt(low) * math.sqrt(high), math.sqrt(least_ratio)
        low, high = max(_SMALLEST, middle / margin), min(_LARGEST, middle * margin)
    return Scale(low, high, is_log=True)


def linear_scale(values: NDArray[np.float64]) -> Scale | None:
    """Makes a linear scale over the finite values; None: no value."""
    kept = values[np.isfinite(values)]
    return Scale(float(kept.min()), float(kept.max()), is_log=False) if kept.size else None


def scale_for(metric: str, values: NDArray[np.float64]) -> Scale | None:
    """Makes the scale for a column of `layers.csv`.

    Shares go from 0 to 1; other columns are logarithmic unless some value is negative.
    """
    if column_of("layers", metric).scale == "share":
        return Scale(0.0, 1.0, is_log=False) if np.isfinite(values).any() else None
    has_negative = bool((values[np.isfinite(values)] < 0).any())
    return linear_scale(values) if has_negative else log_scale(values)
