"""Histograms as ridges: their bins, their standard deviation, and which bins are spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vgexp.report.figures import style

_TAIL = 1e-3
"""Share of a layer's entries that may lie beyond each end of the x axis."""
_MOST_SPIKES, _LEAST_SHARE, _TOWERS = 4, 0.15, 4.0
"""Up to so many bins that hold so much, so many times as dense as the next, are spikes."""
_LEAST_ENTRY = 1e-15
"""A smaller share is not that of an entry among those that a machine holds."""
_FAR_FROM_ONE = 100
"""Decades from which on edges are told in powers of ten, for matplotlib's own arithmetic."""


@dataclass(frozen=True)
class Ridge:
    """The bins [n] of one layer at one step, in order."""

    lower: np.ndarray
    upper: np.ndarray
    share: np.ndarray

    @property
    def ends(self) -> tuple[float, float]:
        """The edges between which all but the tails lie."""
        below = np.cumsum(self.share) / self.share.sum()
        # A sum of floats may stay under 1.
        low, high = np.searchsorted(below, [_TAIL, 1 - _TAIL - 1e-9])
        return float(self.lower[low]), float(self.upper[min(int(high), len(below) - 1)])

    @property
    def spread(self) -> str:
        """The standard deviation as text, with entries at the middle of their bins."""
        if len(self.share) == 1:
            return f"< {self.upper[0] - self.lower[0]:.1g}"
        middles, weights = (self.lower + self.upper) / 2, self.share / self.share.sum()
        # Scaled, for squares of what is tiny or huge are not numbers.
        scale = np.abs(middles).max() or 1.0
        offsets = (middles - weights @ middles) / scale
        return f"{scale * np.sqrt(weights @ offsets**2):.2g}"

    @property
    def missing(self) -> float:
        """Share of entries that lie in no bin, since they are not finite."""
        return max(0.0, 1.0 - float(self.share.sum()))


Ridges = dict[tuple[int, int], Ridge]
"""(layer, step) -> its ridge; none where no entry is finite."""


def ends_of(histograms: pd.DataFrame) -> list[int]:
    """Returns the first and the last step at which the quantity shown was measured."""
    of_quantity = histograms["quantity"] == quantity_of(histograms)
    steps = histograms.loc[of_quantity & _are_shares(histograms), "step"]
    return sorted({int(steps.min()), int(steps.max())}) if len(steps) else []


def quantity_of(histograms: pd.DataFrame) -> str:
    """Returns the quantity that is shown: h, or z where h was not measured."""
    return "act" if (histograms["quantity"] == "act").any() else "preact"


def power_of(rows: pd.DataFrame) -> int:
    """Returns the power of ten in which edges are given: 0, unless their squares leave float64."""
    largest = float(np.abs(style.finite(rows[["lower", "upper"]])).max(initial=0.0))
    power = int(np.floor(np.log10(largest))) if largest > 0 else 0
    # Of subnormal numbers what ten to the power of 300 makes.
    return max(-300, power) if abs(power) > _FAR_FROM_ONE else 0


def ridges_of(rows: pd.DataFrame, layers: list[int], factor: float) -> Ridges:
    """Makes the ridges of layers, edges times a factor; of modules side by side the first's."""
    rows = rows[rows["layer"].isin(layers) & _are_shares(rows)]
    rows = rows[np.isfinite(rows["lower"]) & np.isfinite(rows["upper"])]
    found: Ridges = {}
    keys: Any
    for keys, group in rows.groupby(["layer", "step"]):
        first = group[group["name"] == group["name"].iloc[0]].sort_values("lower")
        lower, upper, share = (first[name].to_numpy("float64") for name in Ridge.__match_args__)
        found[int(keys[0]), int(keys[1])] = Ridge(lower * factor, upper * factor, share)
    return found


def spikes_of(share: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Finds the bins [n] far above the others: those before the steepest fall of the density."""
    found = np.zeros(len(share), dtype="bool")
    if len(share) <= 2:
        return ~found
    order = np.argsort(-density, kind="stable")
    num_most = min(_MOST_SPIKES, len(share) - 1)
    falls = density[order[:num_most]] / density[order[1 : num_most + 1]]
    num_spikes = int(falls.argmax()) + 1
    chosen = order[:num_spikes]
    if falls.max() > _TOWERS and share[chosen].sum() >= _LEAST_SHARE:
        found[chosen] = True
    return found


def _are_shares(rows: pd.DataFrame) -> pd.Series:
    """Which rows tell of a bin with entries in it."""
    return rows["share"].between(_LEAST_ENTRY, 1)
