"""Distributions of activations, a ridge a layer, at the first and the last measured step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import evenly

MOST_RIDGES = 12
_HEIGHT = 0.88
"""Of a ridge; 1 from a layer to the next."""
_TAIL = 1e-3
"""Share of a layer's entries that may lie beyond each end of the x axis."""
_MOST_SPIKES, _LEAST_SHARE, _TOWERS = 4, 0.15, 4.0
"""Up to so many bins that hold so much, so many times as dense as the next, are spikes."""
_LEAST_ENTRY = 1e-15
"""A smaller share is not that of an entry among those that a machine holds."""
_FAR_FROM_ONE = 100
"""Decades from which on edges are told in powers of ten, for matplotlib's own arithmetic."""
_NAMES = {"act": "Activations h", "preact": "Pre-activations z"}


@dataclass(frozen=True)
class _Ridge:
    """The bins [n] of one layer at one step, in order."""

    lower: np.ndarray
    upper: np.ndarray
    share: np.ndarray

    @property
    def ends(self) -> tuple[float, float]:
        """Between which all but the tails lie."""
        below = np.cumsum(self.share) / self.share.sum()
        # A sum of floats may stay under 1.
        low, high = np.searchsorted(below, [_TAIL, 1 - _TAIL - 1e-9])
        return float(self.lower[low]), float(self.upper[min(int(high), len(below) - 1)])

    @property
    def spread(self) -> str:
        """The standard deviation, entries taken at the middle of their bins, in words."""
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


Ridges = dict[tuple[int, int], _Ridge]
"""(layer, step) -> its ridge; none where no entry is finite."""


@style.drawn
def distributions(histograms: pd.DataFrame) -> Figure:
    """Densities of h by layer at the first and the last measured step, each on its own axis.

    Each ridge is scaled to its own height, so that a spike (all units saturated, or dead) does not
    flatten the others; bins that tower above the rest of their ridge are a bar with their share in
    words. Beside a ridge stands its standard deviation, as the bins tell it. Of many layers about
    12 are shown; of each one in a thousand entries may lie beyond either end of the axis. Where no
    h was measured it is z.

    Args:
        histograms: rows as in `histograms.csv`.
    """
    steps = _ends(histograms)
    figure, panels = style.canvas(1, max(1, len(steps)), width=4.6 * max(1, len(steps)) + 0.8)
    draw_distributions(panels, histograms)
    return figure


def draw_distributions(panels: list[Axes], histograms: pd.DataFrame) -> None:
    """`distributions` into a panel for each of its steps, or into one: the first."""
    steps = _ends(histograms)[: len(panels)]
    if not steps:
        style.say(panels[0], "no distribution was measured")
        return
    quantity = _quantity(histograms)
    rows = histograms[(histograms["quantity"] == quantity) & histograms["step"].isin(steps)]
    layers = sorted(rows["layer"].dropna().astype("int64").unique().tolist())
    chosen = [layers[place] for place in evenly(len(layers), MOST_RIDGES)]
    power = _power(rows)
    unit = "" if power == 0 else f" / {style.ten_to(power)}"
    ridges = _ridges(rows, chosen, 10.0**-power)
    for axes, step in zip(panels, steps, strict=False):
        _scale(axes, [ridge for (_, when), ridge in ridges.items() if when == step])
        for place, layer in enumerate(chosen):
            colour = style.shade(place / max(1, len(chosen) - 1))
            _draw_ridge(axes, ridges.get((layer, step)), place, colour)
        axes.set_title(f"{_NAMES[quantity]}, step {step}")
        axes.set_xlabel(_NAMES[quantity].lower() + unit)
        axes.text(1.02, 1.0, "std", transform=axes.transAxes, va="top", fontsize=8)
        axes.set_ylim(len(chosen) - 0.8, -1.05)
        axes.yaxis.set_major_locator(FixedLocator(list(range(len(chosen)))))
        axes.set_yticklabels([str(layer) for layer in chosen])
        axes.grid(False, axis="y")
    note = f" ({len(chosen)} of {len(layers)})" if len(chosen) < len(layers) else ""
    panels[0].set_ylabel(f"layer{note}: density, each to its own height")


def _ends(histograms: pd.DataFrame) -> list[int]:
    """The first and the last step at which the quantity shown was measured."""
    of_quantity = histograms["quantity"] == _quantity(histograms)
    steps = histograms.loc[of_quantity & _are_shares(histograms), "step"]
    return sorted({int(steps.min()), int(steps.max())}) if len(steps) else []


def _are_shares(rows: pd.DataFrame) -> pd.Series:
    """Which rows tell of a bin with entries in it."""
    return rows["share"].between(_LEAST_ENTRY, 1)


def _quantity(histograms: pd.DataFrame) -> str:
    return "act" if (histograms["quantity"] == "act").any() else "preact"


def _power(rows: pd.DataFrame) -> int:
    """The power of ten in which edges are told: 0, unless their squares are no numbers."""
    largest = float(np.abs(style.finite(rows[["lower", "upper"]])).max(initial=0.0))
    power = int(np.floor(np.log10(largest))) if largest > 0 else 0
    # Of subnormal numbers what ten to the power of 300 makes.
    return max(-300, power) if abs(power) > _FAR_FROM_ONE else 0


def _ridges(rows: pd.DataFrame, layers: list[int], factor: float) -> Ridges:
    """Those of the layers, their edges times a factor; of modules side by side the first."""
    rows = rows[rows["layer"].isin(layers) & _are_shares(rows)]
    rows = rows[np.isfinite(rows["lower"]) & np.isfinite(rows["upper"])]
    found: Ridges = {}
    keys: Any
    for keys, group in rows.groupby(["layer", "step"]):
        first = group[group["name"] == group["name"].iloc[0]].sort_values("lower")
        lower, upper, share = (first[name].to_numpy("float64") for name in _Ridge.__match_args__)
        found[int(keys[0]), int(keys[1])] = _Ridge(lower * factor, upper * factor, share)
    return found


def _scale(axes: Axes, ridges: list[_Ridge]) -> None:
    """The x axis over all ridges of a panel."""
    if not ridges:
        return
    ends = np.array([ridge.ends for ridge in ridges])
    low, high = float(ends.min()), float(ends.max())
    pad = 0.02 * (high - low) or 0.5 * abs(high) or 0.5
    axes.set_xlim(low - pad, high + pad)


def _draw_ridge(axes: Axes, ridge: _Ridge | None, place: int, colour: Any) -> None:
    axes.axhline(place, color=style.FAINT, linewidth=0.8, zorder=1)
    if ridge is None:
        _write(axes, 0.99, place, "no finite entry", "right")
        return
    span = float(np.ptp(axes.get_xlim()))
    widths = ridge.upper - ridge.lower
    density = ridge.share / np.where(widths > 0, widths, 1e-3 * span)
    spikes = _spikes(ridge.share, density)
    rest = np.where(spikes, 0.0, density)
    # Below a spike the rest is lower, so that the bar stands out of it.
    height = _HEIGHT * (0.6 if spikes.any() else 1.0) / (rest.max() or 1.0)
    _fill(axes, ridge, place - rest * height, place, colour)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], spikes.astype("int8"), [0]])))
    for start, end in changes.reshape(-1, 2):
        ends = float(ridge.lower[start]), float(ridge.upper[end - 1])
        _draw_spike(axes, ends, float(ridge.share[start:end].sum()), place)
    axes.text(1.02, place, ridge.spread, transform=axes.get_yaxis_transform(), fontsize=8)
    if ridge.missing > 1e-4:
        _write(axes, 0.99, place, f"{style.percent(ridge.missing)} not finite", "right")


def _spikes(share: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Which bins [n] tower above the others: those before the steepest fall of the density."""
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


def _fill(axes: Axes, ridge: _Ridge, tops: np.ndarray, base: float, colour: Any) -> None:
    """The bins as one outline, which falls to the baseline where bins without entries lie."""
    x, y = [ridge.lower[0]], [base]
    for index, (lower, upper, top) in enumerate(zip(ridge.lower, ridge.upper, tops, strict=True)):
        if index and lower > ridge.upper[index - 1]:
            x += [ridge.upper[index - 1], lower]
            y += [base, base]
        x += [lower, upper]
        y += [top, top]
    x, y = [*x, ridge.upper[-1]], [*y, base]
    axes.fill(x, y, facecolor=colour, edgecolor=style.INK, linewidth=0.7, zorder=2)


def _draw_spike(axes: Axes, ends: tuple[float, float], share: float, place: int) -> None:
    """A bar of the ridge's whole height, wide enough to be seen, with its share."""
    lower, upper = ends
    top = place - _HEIGHT
    corners = [(lower, place), (lower, top), (upper, top), (upper, place)]
    axes.add_collection(
        PolyCollection(
            [corners], facecolor=style.SPIKE, edgecolor=style.SPIKE, linewidth=1.5, zorder=3
        ),
        autolim=False,
    )
    left, right = axes.get_xlim()
    across = ((lower + upper) / 2 - left) / (right - left)
    side, away = ("right", -0.015) if across > 0.85 else ("left", 0.015)
    _write(axes, across + away, place, style.percent(share), side)


def _write(axes: Axes, across: float, place: int, words: str, side: str) -> None:
    """Small words at the top of a ridge's place."""
    axes.text(
        across,
        place - _HEIGHT,
        words,
        transform=axes.get_yaxis_transform(),
        ha=side,
        va="top",
        fontsize=8,
        bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        zorder=5,
    )
