"""Curves over steps, one for each layer, shaded by depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from vgexp.quantities import column_of
from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import choose_evenly, layer_name
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_line, log_scale
from vgexp.report.figures.wanted import draws_table
from vgexp.report.grid import grid

GUIDE = 1e-3
"""A step that changes weights by a thousandth is about right (Karpathy, 2019: a rule of thumb)."""
_MOST_LINES = 24
_MOST_POINTS = 200
"""Of one curve; where it would have more than twice as many, medians of as many steps are drawn."""
_ZEROS = 0.13
"""Height of the strip of exact zeros, a row a layer that has some, as a share of the panel's."""


@draws_table("layers", "step", "layer", "kind", "update_ratio")
def update_ratios(layers: pd.DataFrame) -> Figure:
    """The change of each layer's weights in a step over their norm, over steps.

    Args:
        layers: rows as in `layers.csv`.
    """
    return style.draw_alone(
        draw_update_ratios, "Update ratio: how far a step moves each layer's weights", layers
    )


@draws_table("attention", "step", "layer", "entropy_fraction")
def attention_entropy(attention: pd.DataFrame) -> Figure:
    """The entropy of each block's attention over steps: 1 is uniform, 0 is one position.

    Args:
        attention: rows as in `attention.csv`.
    """
    return style.draw_alone(
        draw_attention_entropy, "Attention entropy of each block, mean over heads", attention
    )


def draw_update_ratios(axes: Axes, layers: pd.DataFrame) -> None:
    """Draws `update_ratios` into a panel, with exact zeros in a strip below."""
    table = grid(layers, "update_ratio").dropna(axis="index", how="all")
    if table.empty:
        style.say(axes, "update_ratio was not measured")
        return
    chosen = choose_evenly(len(table), _MOST_LINES)
    shades = [style.choose_shade(place / max(1, len(table) - 1)) for place in chosen]
    shown = table.iloc[chosen]
    num_steps = table.shape[1]
    together = -(-num_steps // _MOST_POINTS) if num_steps > 2 * _MOST_POINTS else 1
    for (_, row), colour in zip(shown.iterrows(), shades, strict=True):
        _draw_layer(axes, _medians(row.dropna(), together), colour)
    has_zeros = _draw_zeros(axes, shown, shades)
    axes.axhline(GUIDE, color=style.INK, linestyle="--", linewidth=1.2, label="guide 1e-3")
    log_scale(axes, include=(GUIDE,), free_below=_ZEROS * 1.15 if has_zeros else 0.0)
    axes.set_xlabel(f"step (medians of {together} measured)" if together > 1 else "step")
    axes.set_ylabel(column_of("layers", "update_ratio").label)
    style.tick_whole_numbers(axes.xaxis)
    _name_shades(axes, table, chosen)
    legend_below(axes)


def draw_attention_entropy(axes: Axes, attention: pd.DataFrame) -> None:
    """Draws `attention_entropy` into a panel: the mean over a block's heads."""
    values = attention.groupby(["layer", "step"])["entropy_fraction"].mean()
    table = values.unstack("step").dropna(axis="columns", how="all")  # noqa: PD010 (as in `grid`)
    table = table.dropna(axis="index", how="all")
    if table.empty:
        style.say(axes, "attention was not measured")
        return
    table.index = table.index.astype("int64").astype("str")
    chosen = choose_evenly(len(table), _MOST_LINES)
    for place in chosen:
        row = table.iloc[place].replace([np.inf, -np.inf], np.nan).dropna()
        marker = "o" if len(row) < 3 else None
        colour = style.choose_shade(place / max(1, len(table) - 1))
        axes.plot(row.index, row, color=colour, marker=marker, linewidth=1.4)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("step")
    axes.set_ylabel("entropy / largest possible")
    style.tick_whole_numbers(axes.xaxis)
    _name_shades(axes, table, chosen)


def _draw_layer(axes: Axes, row: pd.Series, colour: Any) -> None:
    """One layer's curve; steps at which it was not measured do not break it."""
    look = {"color": colour, "linewidth": 1.2, "markersize": 3.0}
    log_line(axes, row.index, row.where(row != 0), marker="o" if len(row) < 3 else None, **look)


def _medians(row: pd.Series, together: int) -> pd.Series:
    """Lower medians of so many values in a row, each at the mean of its steps; infinite where one
    of them is. Zeros count: half of them make a zero, which is drawn as one."""
    if together == 1:
        return row
    groups = np.arange(len(row)) // together
    medians = row.groupby(groups).quantile(0.5, interpolation="lower")
    medians = medians.mask(np.isinf(row).groupby(groups).any(), np.inf)
    steps = pd.Series(row.index.to_numpy("float64")).groupby(groups).mean()
    return medians.set_axis(steps.to_numpy())


def _draw_zeros(axes: Axes, table: pd.DataFrame, shades: list[Any]) -> bool:
    """The strip at the foot: which layers' weights did not move at which steps."""
    zeros = [(row[row == 0].index, shade) for (_, row), shade in
             zip(table.iterrows(), shades, strict=True) if (row == 0).any()]  # fmt: skip
    if not zeros:
        return False
    heights = _ZEROS * (np.arange(len(zeros), 0, -1) - 0.5) / len(zeros)
    for (steps, shade), height in zip(zeros, heights, strict=True):
        steps = steps[:: -(-len(steps) // (10 * _MOST_POINTS))]
        axes.plot(
            steps,
            np.full(len(steps), height),
            transform=axes.get_xaxis_transform(),
            linestyle="none",
            marker="s",
            markersize=max(1.6, min(3.0, 22 / len(zeros))),
            markeredgewidth=0,
            color=shade,
        )
    axes.add_patch(
        Rectangle((0, 0), 1, _ZEROS, transform=axes.transAxes, color="#f4f4f4", zorder=0)
    )
    axes.annotate(
        "0",
        (0, _ZEROS / 2),
        (-5, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="center",
    )
    return True


def _name_shades(axes: Axes, table: pd.DataFrame, chosen: np.ndarray) -> None:
    """A bar beside the panel that says which shade is which layer."""
    num_shades = len(table)
    shades = ListedColormap(
        [style.choose_shade(i / max(1, num_shades - 1)) for i in range(num_shades)]
    )
    mappable = ScalarMappable(Normalize(-0.5, num_shades - 0.5), shades)
    note = f" ({len(chosen)} of {num_shades} drawn)" if len(chosen) < num_shades else ""
    bar = axes.figure.colorbar(mappable, ax=axes, label=f"layer{note}", pad=0.03)
    # Between bar and panel: beyond the bar it would be the next panel's.
    bar.ax.yaxis.set_label_position("left")
    places = choose_evenly(num_shades, 6).tolist()
    bar.ax.yaxis.set_major_locator(FixedLocator(places))
    bar.ax.set_yticklabels([layer_name(str(table.index[place])) for place in places])
    bar.ax.minorticks_off()
    # The first layer on top, as in maps.
    bar.ax.invert_yaxis()
