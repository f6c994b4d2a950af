"""The curvature of the loss over steps: Hessian eigenvalues and the trace."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import clip_to_scale, log_line, log_scale
from vgexp.report.figures.wanted import draws_table


@draws_table("curvature", "step", "hessian_max", "hessian_trace")
@style.with_style
def curvature(table: pd.DataFrame) -> Figure:
    """Draws the extreme Hessian eigenvalues, the stability limit and the trace over steps.

    Args:
        table: rows as in `curvature.csv`.
    """
    figure, [sharpness, trace] = style.canvas(1, 2, width=11.6)
    rows = table.sort_values("step")
    _draw_sharpness(sharpness, rows)
    _draw_trace(trace, rows)
    sharpness.set_title("Sharpness")
    trace.set_title("Trace of the Hessian")
    for axes in (sharpness, trace):
        axes.set_xlabel("step")
        style.tick_whole_numbers(axes.xaxis)
        legend_below(axes)
    return figure


def _draw_sharpness(axes: Axes, rows: pd.DataFrame) -> None:
    """A negative eigenvalue is drawn by its size: a logarithmic scale has no place for its sign."""
    if rows[["hessian_max", "hessian_min"]].isna().all(axis=None):
        style.say(axes, "no eigenvalue was measured")
        return
    for index, (column, words) in enumerate(
        (("hessian_max", "largest"), ("hessian_min", "smallest"))
    ):
        values = rows[column].to_numpy("float64")
        look = style.choose_line_look(index)
        log_line(axes, rows["step"], np.abs(values), label=f"{words} eigenvalue", **look)
        if (values < 0).any():
            hollow = {**look, "linestyle": "none", "markerfacecolor": style.PAPER, "zorder": 3}
            sizes = np.where(values < 0, -values, np.nan)
            log_line(axes, rows["step"], sizes, label=f"{words}, below 0: its size", **hollow)
    limit = rows["stability_limit"].to_numpy("float64")
    if np.isfinite(limit).any():
        look = {"color": style.INK, "linestyle": "--", "linewidth": 1.2}
        log_line(axes, rows["step"], limit, label="stability limit (sgd: 2 / lr)", **look)
    log_scale(axes)
    axes.set_ylabel("eigenvalue of the Hessian")


def _draw_trace(axes: Axes, rows: pd.DataFrame) -> None:
    trace, error = (clip_to_scale(rows[name]) for name in ("hessian_trace", "hessian_trace_error"))
    if np.isnan(trace).all():
        style.say(axes, "no trace was finite")
        return
    colour = style.choose_line_look(0)["color"]
    axes.fill_between(
        rows["step"], trace - error, trace + error, color=colour, alpha=0.2, linewidth=0,
        label="standard error",
    )  # fmt: skip
    axes.plot(rows["step"], trace, color=colour, marker="o")
    axes.set_ylabel("sum of the eigenvalues")
