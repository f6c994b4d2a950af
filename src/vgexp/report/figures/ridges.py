"""Draws distributions of activations as ridges at the first and the last measured step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator

from vgexp.report.cut_short import without_cut_step
from vgexp.report.figures import bins, style
from vgexp.report.figures.bins import Ridge
from vgexp.report.figures.layer_axis import choose_evenly
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.wanted import draws_table

MOST_RIDGES = 12
_HEIGHT = 0.88
"""Of a ridge; 1 from a layer to the next."""
_SPIKE = "bin too high to draw: its share of the entries"
_NAMES = {"act": "Activations h", "preact": "Pre-activations z"}


@draws_table("histograms", "step", "layer", "quantity", "lower", "upper", "share")
@style.with_style
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
    steps = bins.ends_of(without_cut_step(histograms).rows)
    figure, panels = style.canvas(1, max(1, len(steps)), width=4.6 * max(1, len(steps)) + 0.8)
    draw_distributions(panels, histograms)
    return figure


def draw_distributions(panels: list[Axes], histograms: pd.DataFrame) -> None:
    """Draws `distributions` into a panel for each of its steps, or the first into one panel."""
    whole = without_cut_step(histograms)
    histograms = whole.rows
    steps = bins.ends_of(histograms)[: len(panels)]
    if not steps:
        style.say(panels[0], "no distribution was measured")
        return
    quantity = bins.quantity_of(histograms)
    rows = histograms[(histograms["quantity"] == quantity) & histograms["step"].isin(steps)]
    layers = sorted(rows["layer"].dropna().astype("int64").unique().tolist())
    chosen = [layers[place] for place in choose_evenly(len(layers), MOST_RIDGES)]
    power = bins.power_of(rows)
    unit = "" if power == 0 else f" / {style.ten_to(power)}"
    ridges = bins.ridges_of(rows, chosen, 10.0**-power)
    has_spikes = False
    for axes, step in zip(panels, steps, strict=False):
        _scale(axes, [ridge for (_, when), ridge in ridges.items() if when == step])
        for place, layer in enumerate(chosen):
            colour = style.choose_shade(place / max(1, len(chosen) - 1))
            has_spikes |= _draw_ridge(axes, ridges.get((layer, step)), place, colour)
        axes.set_title(f"{_NAMES[quantity]}, step {step}")
        note = whole.note if step == steps[-1] else ""
        axes.set_xlabel(f"{_NAMES[quantity].lower()}{unit}{note}")
        axes.text(1.02, 1.0, "std", transform=axes.transAxes, va="top", fontsize=8)
        axes.set_ylim(len(chosen) - 0.8, -1.05)
        axes.yaxis.set_major_locator(FixedLocator(list(range(len(chosen)))))
        axes.set_yticklabels([str(layer) for layer in chosen])
        axes.grid(False, axis="y")
    note = f" ({len(chosen)} of {len(layers)})" if len(chosen) < len(layers) else ""
    panels[0].set_ylabel(f"layer{note}: density, each to its own height")
    if has_spikes:
        legend_below(panels[0], [Patch(color=style.SPIKE, label=_SPIKE)])


def _scale(axes: Axes, ridges: list[Ridge]) -> None:
    """The x axis over all ridges of a panel."""
    if not ridges:
        return
    ends = np.array([ridge.ends for ridge in ridges])
    low, high = float(ends.min()), float(ends.max())
    pad = 0.02 * (high - low) or 0.5 * abs(high) or 0.5
    axes.set_xlim(low - pad, high + pad)


def _draw_ridge(axes: Axes, ridge: Ridge | None, place: int, colour: Any) -> bool:
    """Draws it; whether some of its bins are spikes."""
    axes.axhline(place, color=style.FAINT, linewidth=0.8, zorder=1)
    if ridge is None:
        _write(axes, 0.99, place, "no finite entry", "right")
        return False
    span = float(np.ptp(axes.get_xlim()))
    widths = ridge.upper - ridge.lower
    density = ridge.share / np.where(widths > 0, widths, 1e-3 * span)
    spikes = bins.spikes_of(ridge.share, density)
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
    return bool(spikes.any())


def _fill(axes: Axes, ridge: Ridge, tops: np.ndarray, base: float, colour: Any) -> None:
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
