"""Draws the backward signal through time of a recurrent network."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgexp.quantities import PREDICTION, column_of
from vgexp.report.figures import style
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import log_line, log_scale
from vgexp.report.figures.wanted import draws_table
from vgexp.report.grid import first_middle_last

EXPECTED = f"{PREDICTION}delta_rms"
"""The column of theory."""
_HIDDEN, _CELL = ".h", ".c"


@draws_table("time", "step", "layer", "name", "t", "delta_rms")
def through_time(time: pd.DataFrame) -> Figure:
    """`delta_rms` of the last layer's state against time, at the first, a middle and the last step.

    The hidden state's is a full line, that of an LSTM's cell state a dashed one. Beside it what
    theory predicts at step 0, where the table has it.

    Args:
        time: rows as in `time.csv`.
    """
    return style.draw_alone(
        draw_through_time, "Backward through time: what comes back to each state", time
    )


def draw_through_time(axes: Axes, time: pd.DataFrame) -> None:
    """Draws `through_time` into a panel."""
    rows = time[time["delta_rms"].notna()]
    if not len(rows):
        style.say(axes, "no state was measured through time")
        return
    rows = rows[rows["layer"] == rows["layer"].max()]
    steps = first_middle_last(rows["step"].unique().tolist())
    for ending, dashes in ((_HIDDEN, "-"), (_CELL, (0, (2.5, 1.5)))):
        states = rows[rows["name"].astype("str").str.endswith(ending)]
        for index, step in enumerate(steps):
            at_step = states[states["step"] == step].sort_values("t")
            if len(at_step):
                look = style.choose_nested_look(index, len(steps)) | {"linestyle": dashes}
                look |= {"marker": "o" if ending == _HIDDEN else None}
                words = f"{ending[1:]}, step {step}"
                log_line(axes, at_step["t"], at_step["delta_rms"], label=words, **look)
    _draw_prediction(axes, rows)
    log_scale(axes)
    axes.set(xlabel="time t", ylabel=column_of("time", "delta_rms").label)
    style.tick_whole_numbers(axes.xaxis)
    legend_below(axes)


def _draw_prediction(axes: Axes, rows: pd.DataFrame) -> None:
    if EXPECTED not in rows.columns:
        return
    known = rows[rows[EXPECTED].notna()].sort_values("t")
    if len(known):
        look = {"color": style.INK, "linestyle": "--", "linewidth": 1.2, "zorder": 3}
        words = f"theory, step {known['step'].iloc[0]}"
        log_line(axes, known["t"], known[EXPECTED], label=words, **look)
