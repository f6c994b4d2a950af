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
_FAR_APART = 30.0
"""Widest over narrowest ridge from which on a linear axis would show spikes only."""
_SPIKE_SHARE, _SPIKE_DENSITY = 0.15, 4.0
"""A bin with this share that stands so many times above the bins that have less is a spike."""
_SYMBOLS = {"act": "h", "preact": "z"}


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
    def missing(self) -> float:
        """Share of entries that lie in no bin, since they are not finite."""
        return max(0.0, 1.0 - float(self.share.sum()))


Ridges = dict[tuple[int, int], _Ridge]
"""(layer, step) -> its ridge; none where no entry is finite."""


@style.drawn
def distributions(histograms: pd.DataFrame) -> Figure:
    """Densities of h by layer at the first and the last measured step, on one x axis.

    Each ridge is scaled to its own height, so that a spike (all units saturated, or dead) does not
    flatten the others; a bin that towers above the rest of its ridge is a bar with its share in
    words. The density is per unit of the axis as it is drawn, so that equal areas of a ridge are
    equal shares on a linear and on a symmetric logarithmic axis alike. Of many layers about 12 are
    shown. Where no h was measured it is z.

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
    ridges = _ridges(rows, chosen)
    for axes, step in zip(panels, steps, strict=False):
        _scale(axes, list(ridges.values()))
        for place, layer in enumerate(chosen):
            colour = style.shade(place / max(1, len(chosen) - 1))
            _draw_ridge(axes, ridges.get((layer, step)), place, colour)
        axes.set_title(f"{_SYMBOLS[quantity]} at step {step}")
        axes.set_xlabel(f"{'activation' if quantity == 'act' else 'pre-activation'} "
                        f"{_SYMBOLS[quantity]}")  # fmt: skip
        axes.set_ylim(len(chosen) - 0.8, -1.05)
        axes.yaxis.set_major_locator(FixedLocator(list(range(len(chosen)))))
        axes.set_yticklabels([str(layer) for layer in chosen])
        axes.grid(False, axis="y")
    note = f" ({len(chosen)} of {len(layers)})" if len(chosen) < len(layers) else ""
    panels[0].set_ylabel(f"layer{note}: density, each to its own height")


def _ends(histograms: pd.DataFrame) -> list[int]:
    """The first and the last step at which the quantity shown was measured."""
    of_quantity = histograms["quantity"] == _quantity(histograms)
    steps = histograms.loc[of_quantity & (histograms["share"] > 0), "step"]
    return sorted({int(steps.min()), int(steps.max())}) if len(steps) else []


def _quantity(histograms: pd.DataFrame) -> str:
    return "act" if (histograms["quantity"] == "act").any() else "preact"


def _ridges(rows: pd.DataFrame, layers: list[int]) -> Ridges:
    """Those of the layers; of modules side by side the first."""
    rows = rows[rows["layer"].isin(layers) & (rows["share"] > 0)]
    rows = rows[np.isfinite(rows["lower"]) & np.isfinite(rows["upper"])]
    found: Ridges = {}
    keys: Any
    for keys, group in rows.groupby(["layer", "step"]):
        first = group[group["name"] == group["name"].iloc[0]].sort_values("lower")
        columns = (first[name].to_numpy("float64") for name in ("lower", "upper", "share"))
        found[int(keys[0]), int(keys[1])] = _Ridge(*columns)
    return found


def _scale(axes: Axes, ridges: list[_Ridge]) -> None:
    """The x axis over all ridges: linear, or symmetric logarithmic where their widths differ."""
    ends = np.array([ridge.ends for ridge in ridges])
    if not len(ends):
        return
    wide = np.array([end for end, ridge in zip(ends, ridges, strict=True) if len(ridge.share) > 2])
    widths = np.ptp(wide, axis=1) if len(wide) else np.ones(1)
    if widths.max() > _FAR_APART * widths.min() > 0:
        narrow = max(float(widths.min()), float(np.abs(ends).max()) * 1e-12)
        axes.set_xscale("symlog", linthresh=narrow)
    to_axis = axes.xaxis.get_transform()
    low, high = to_axis.transform(np.array([ends.min(), ends.max()]))
    pad = 0.02 * (high - low) or 0.5
    axes.set_xlim(*to_axis.inverted().transform(np.array([low - pad, high + pad])))


def _draw_ridge(axes: Axes, ridge: _Ridge | None, place: int, colour: Any) -> None:
    axes.axhline(place, color=style.FAINT, linewidth=0.8, zorder=1)
    if ridge is None:
        _write(axes, 0.99, place, "no finite entry", "right")
        return
    density = _density(axes, ridge)
    spikes = _spikes(ridge.share, density)
    rest = np.where(spikes, 0.0, density)
    # Below a spike the rest is lower, so that the bar stands out of it.
    height = _HEIGHT * (0.6 if spikes.any() else 1.0) / (rest.max() or 1.0)
    _fill(axes, ridge, place - rest * height, place, colour)
    for lower, upper, share in zip(
        ridge.lower[spikes], ridge.upper[spikes], ridge.share[spikes], strict=True
    ):
        _draw_spike(axes, (lower, upper), share, place)
    if ridge.missing > 1e-4:
        _write(axes, 0.99, place, f"{style.percent(ridge.missing)} not finite", "right")


def _density(axes: Axes, ridge: _Ridge) -> np.ndarray:
    """Share per unit of the axis as it is drawn [n]."""
    to_axis = axes.xaxis.get_transform()
    widths = to_axis.transform(ridge.upper) - to_axis.transform(ridge.lower)
    span = np.ptp(to_axis.transform(np.array(axes.get_xlim())))
    return np.asarray(ridge.share / np.maximum(widths, 1e-6 * span))


def _spikes(share: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Which bins [n] hold a large share and tower above all that do not."""
    large = share >= _SPIKE_SHARE
    rest = density[~large].max(initial=0.0)
    return np.asarray(large & (density > _SPIKE_DENSITY * rest))


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
    to_panel = axes.transData + axes.transAxes.inverted()
    across = to_panel.transform([[(lower + upper) / 2, place]])[0][0]
    is_right = across > 0.85
    _write(
        axes,
        across + (-0.015 if is_right else 0.015),
        place,
        style.percent(share),
        "right" if is_right else "left",
    )


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
