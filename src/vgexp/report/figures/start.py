"""Draws networks at initialisation over seeds, with the curves of theory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgexp.diagnosis.through_time import last_hidden
from vgexp.quantities import PREDICTION, READOUT, column_of
from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import layers_across
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import LARGEST, SMALLEST, log_line, log_scale
from vgexp.report.figures.through_time import EXPECTED
from vgexp.report.figures.wanted import draws_table
from vgexp.report.terminal.at_start import geometric_means, means_over_seeds

_SPREAD = "predicted_log_delta_std"
_THEORY: dict[str, Any] = {"color": style.INK, "zorder": 3}
_PANELS = {
    "delta_rms": "Backward signal",
    "preact_std": "Forward signal",
    "backward_gain": "Factor of each layer",
}


@draws_table("layers", "layer", "name", "kind", "seed", "delta_rms", over_seeds=True)
@style.with_style
def at_start(layers: pd.DataFrame) -> Figure:
    """Backward signal, forward signal and factor per layer, each measured over seeds and predicted.

    Lines are geometric means over seeds; the band is their geometric standard deviation, the
    dashed lines around theory that which finite width is predicted to give.

    Args:
        layers: `layers.csv` of `vgexp signal`: rows of step 0 with a column `seed`.
    """
    figure, panels = style.canvas(1, len(_PANELS), width=14.4, height=4.4)
    for axes, (metric, title) in zip(panels, _PANELS.items(), strict=True):
        draw_at_start(axes, layers, metric)
        axes.set_title(title)
    return figure


@draws_table("time", "layer", "name", "t", "seed", "delta_rms", over_seeds=True)
def time_at_start(time: pd.DataFrame) -> Figure:
    """`delta_rms` of the last layer's hidden state against time, over seeds and predicted.

    Args:
        time: `time.csv` of `vgexp signal`: rows of step 0 with a column `seed`.
    """
    return style.draw_alone(
        _draw_time, "Backward through time: what comes back to each state", time
    )


def draw_at_start(axes: Axes, layers: pd.DataFrame, metric: str) -> None:
    """Draws a column over depth into a panel."""
    if layers.empty or not layers[metric].notna().any():
        style.say(axes, f"{metric} was not measured")
        return
    measured = means_over_seeds(layers, metric)
    names = [str(label) for label in measured.index]
    numbers = np.arange(1, len(names) + 1) if READOUT in names else np.array(names, dtype="int64")
    _draw_measured(axes, numbers, measured, layers["seed"].nunique())
    _draw_theory(axes, layers, metric, numbers)
    log_scale(axes)
    axes.set_ylabel(column_of("layers", metric).label)
    layers_across(axes, numbers, names)
    legend_below(axes)


def _draw_measured(axes: Axes, x: np.ndarray, over_seeds: pd.DataFrame, num_seeds: int) -> None:
    """A line of geometric means over seeds, with a band of their spread."""
    blue = style.choose_line_look(0)["color"]
    mean, spread = (over_seeds[name].to_numpy("float64") for name in ("mean", "log_std"))
    log_line(
        axes, x, mean, color=blue, marker="o", markevery=max(1, len(x) // 20),
        label=f"measured, {num_seeds} seed{'s' if num_seeds > 1 else ''}",
    )  # fmt: skip
    if np.isfinite(spread).any():
        axes.fill_between(
            x, _times(mean, -spread), _times(mean, spread), color=blue, alpha=0.2, linewidth=0
        )


def _draw_time(axes: Axes, time: pd.DataFrame) -> None:
    rows = last_hidden(time)
    if not rows["delta_rms"].notna().any():
        style.say(axes, "no state was measured through time")
        return
    by_time = rows.groupby("t")
    _draw_measured(axes, *_over_seeds(by_time["delta_rms"]), rows["seed"].nunique())
    if EXPECTED in rows.columns and rows[EXPECTED].notna().any():
        t, expected = _over_seeds(by_time[EXPECTED])
        log_line(axes, t, expected["mean"], label="theory", linewidth=1.4, **_THEORY)
    log_scale(axes)
    axes.set(xlabel="time t", ylabel="delta_rms: rms of N dL/dh")
    style.tick_whole_numbers(axes.xaxis)
    legend_below(axes)


def _over_seeds(by_time: Any) -> tuple[np.ndarray, pd.DataFrame]:
    """Times, and `mean` and `log_std` at each."""
    frame = geometric_means({t: values.tolist() for t, values in by_time})
    return frame.index.to_numpy("float64"), frame


def _draw_theory(axes: Axes, layers: pd.DataFrame, metric: str, numbers: np.ndarray) -> None:
    column = f"{PREDICTION}{metric}"
    if column not in layers.columns or not layers[column].notna().any():
        return
    mean = means_over_seeds(layers, column)["mean"].to_numpy()
    log_line(axes, numbers, mean, label="theory", linewidth=1.4, **_THEORY)
    if metric != "delta_rms" or _SPREAD not in layers.columns:
        return
    spread = means_over_seeds(layers, _SPREAD)["mean"].to_numpy()
    for sign, words in ((1, "theory's spread of single seeds"), (-1, None)):
        log_line(
            axes, numbers, _times(mean, sign * spread),
            linestyle="--", linewidth=0.8, label=words, **_THEORY,
        )  # fmt: skip


def _times(mean: np.ndarray, log_factor: np.ndarray) -> np.ndarray:
    """mean e^log_factor within what a scale holds; nan where the mean has no place on one."""
    has_place = np.isfinite(mean) & (mean > 0)
    logs = np.log(np.where(has_place, mean, 1.0)) + log_factor
    within = np.exp(np.clip(logs, np.log(SMALLEST), np.log(LARGEST)))
    return np.where(has_place, within, np.nan)
