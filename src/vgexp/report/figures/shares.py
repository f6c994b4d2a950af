"""Draws the shares of saturated and dead units over depth."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vgexp.report.cut_short import without_cut_step
from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import layers_across
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.wanted import draws_table
from vgexp.report.grid import first_middle_last, grid, numbers

SHARES = {
    "saturated_fraction": ("saturated entries", "slope below 5 % of its largest"),
    "dead_fraction": ("dead units", "slope 0 at every example"),
}
"""Column -> what it is a share of, and what these are."""


@draws_table("layers", "step", "layer", "kind")
@style.with_style
def shares(layers: pd.DataFrame) -> Figure:
    """The saturated and the dead share of each layer at the first, a middle and the last step.

    A panel for each of the two that was measured.

    Args:
        layers: rows as in `layers.csv`.
    """
    measured = measured_shares(layers)
    figure, panels = style.canvas(1, max(1, len(measured)))
    if not measured:
        style.say(panels[0], "neither saturated nor dead units were measured")
    for axes, column in zip(panels, measured, strict=False):
        draw_share(axes, layers, column)
        what, meaning = SHARES[column]
        axes.set_title(f"{what.capitalize()}: {meaning}")
    return figure


def measured_shares(layers: pd.DataFrame) -> list[str]:
    """Lists the columns of `SHARES` that have a share in some row."""
    return [n for n in SHARES if n in layers.columns and layers[n].between(0, 1).any()]


def draw_share(axes: Axes, layers: pd.DataFrame, column: str) -> None:
    """Draws one of the `SHARES` into a panel, without layers that have no value (the read-out)."""
    whole = without_cut_step(layers)
    table = grid(whole.rows, column)
    table = table.where((table >= 0) & (table <= 1)).dropna(axis="index", how="all")
    if table.empty:
        style.say(axes, f"{column} was not measured")
        return
    steps = first_middle_last(table.columns.tolist())
    for index, step in enumerate(steps):
        look = style.choose_nested_look(index, len(steps))
        axes.plot(numbers(table), table[step], label=f"step {step}", clip_on=False, **look)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    axes.set_ylabel(f"share of {SHARES[column][0]}")
    layers_across(axes, numbers(table), list(table.index))
    axes.set_xlabel(f"layer{whole.note}")
    legend_below(axes)
