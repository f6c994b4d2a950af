"""Draws the backward and the forward signal over depth at three steps."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgexp.quantities import PREDICTION, column_of
from vgexp.report.cut_short import without_cut_step
from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import layers_across
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_line, log_scale
from vgexp.report.figures.wanted import draws_table
from vgexp.report.grid import first_middle_last, grid, numbers


@draws_table("layers", "step", "layer", "kind", "delta_rms")
def backward_signal(layers: pd.DataFrame) -> Figure:
    """`delta_rms` of each layer at the first, a middle and the last measured step.

    Beside it what theory predicts at step 0, where the table has it.

    Args:
        layers: rows as in `layers.csv`.
    """
    return style.draw_alone(
        draw_backward_signal, "Backward signal: what comes back to each layer", layers
    )


@draws_table("layers", "step", "layer", "kind", "preact_std")
def forward_signal(layers: pd.DataFrame) -> Figure:
    """Standard deviation of z of each layer, at the same steps as `backward_signal`."""
    return style.draw_alone(
        draw_forward_signal, "Forward signal: how far each layer's z spreads", layers
    )


def draw_backward_signal(axes: Axes, layers: pd.DataFrame) -> None:
    """Draws `backward_signal` into a panel."""
    _draw(axes, layers, "delta_rms")


def draw_forward_signal(axes: Axes, layers: pd.DataFrame) -> None:
    """Draws `forward_signal` into a panel."""
    _draw(axes, layers, "preact_std")


def _draw(axes: Axes, layers: pd.DataFrame, metric: str) -> None:
    whole = without_cut_step(layers)
    table = grid(whole.rows, metric)
    if table.empty:
        style.say(axes, f"{metric} was not measured")
        return
    steps = first_middle_last(table.columns.tolist())
    for index, step in enumerate(steps):
        look = style.choose_nested_look(index, len(steps))
        log_line(axes, numbers(table), table[step], label=f"step {step}", **look)
    _draw_prediction(axes, layers, f"{PREDICTION}{metric}")
    log_scale(axes)
    layers_across(axes, numbers(table), list(table.index))
    axes.set_xlabel(f"layer{whole.note}")
    axes.set_ylabel(column_of("layers", metric).label)
    legend_below(axes)


def _draw_prediction(axes: Axes, layers: pd.DataFrame, column: str) -> None:
    """The line of theory, where the table has one."""
    if column not in layers.columns:
        return
    table = grid(layers, column)
    if table.empty:
        return
    log_line(
        axes,
        numbers(table),
        table.iloc[:, 0].to_numpy(dtype="float64"),
        label=f"theory, step {table.columns[0]}",
        color=style.INK,
        linestyle="--",
        linewidth=1.2,
        zorder=3,
    )
