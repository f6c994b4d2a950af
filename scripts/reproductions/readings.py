"""What reproductions read off their runs' tables, how they write numbers, how they draw them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

import vgexp
from vgexp.report.figures import style
from vgexp.report.figures.logarithmic import log_line, log_scale


def jobs(sweep: Path) -> pd.DataFrame:
    """`sweep.csv`, a row a job, and `folder`, where each is."""
    table = pd.read_csv(sweep / "sweep.csv")
    return table.assign(folder=[sweep / str(job) for job in table["job"]])


def main_path(signal: Path) -> pd.DataFrame:
    """Rows of the hidden layers 1..L of a run of `vgexp signal`, over seeds."""
    layers = vgexp.load(signal).layers
    return layers[layers["kind"] != "readout"]


def typical(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column's geometric mean over seeds, by layer."""
    return np.exp(np.log(rows[column]).groupby(rows["layer"]).mean())


def factor(rows: pd.DataFrame, column: str = "delta_rms") -> float:
    """exp(-slope) of the line of least squares of a column's logarithm on layer, over seeds."""
    by_layer = np.log(typical(rows, column))
    return math.exp(-float(np.polyfit(by_layer.index, by_layer, 1)[0]))


def time_to(folder: Path, loss: float) -> float:
    """The first step whose training loss, as a mean over the last 20 steps, is below; else inf."""
    mean = vgexp.load(folder).steps["loss"].rolling(20).mean()
    below = np.flatnonzero(mean < loss)
    return float(below[0]) if below.size else math.inf


def number(value: float) -> str:
    """Two significant digits, without trailing zeros of an exponent's."""
    if not math.isfinite(value):
        return "never" if value > 0 else str(value)
    if value and not 1e-3 <= abs(value) < 1e4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}"


def between(values: Iterable[float]) -> str:
    """`0.91 to 0.94`, of all seeds."""
    low, high = number(min(values := list(values))), number(max(values))
    return low if low == high else f"{low} to {high}"


def percent(values: Iterable[float]) -> str:
    """`91 to 94 %`, of shares."""
    values = [100 * value for value in values]
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def draw_beside_theory(axes: Axes, rows: pd.DataFrame, column: str, title: str, index: int) -> None:
    """Measured points with the range of seeds, and the predicted line, over layers."""
    look = style.choose_line_look(index)
    measured, groups = typical(rows, column), rows[column].groupby(rows["layer"])
    predicted = typical(rows, f"predicted_{column}")
    log_line(axes, predicted.index, predicted, color=look["color"], label=f"{title}: theory")
    axes.fill_between(
        measured.index, groups.min(), groups.max(), color=look["color"], alpha=0.2, linewidth=0
    )
    log_line(axes, measured.index, measured, **{**look, "linestyle": "none"}, label="measured")
    axes.set_xlabel("layer")
    style.tick_whole_numbers(axes.xaxis)
    log_scale(axes)


def draw_losses(axes: Axes, folders: Iterable[Path], title: str, index: int, **look: Any) -> None:
    """Median over runs of the training loss, and its range; means over 20 steps."""
    curves = pd.DataFrame(
        {str(folder): vgexp.load(folder).steps["loss"].rolling(20).mean() for folder in folders}
    )
    colour = style.choose_line_look(index)["color"]
    axes.fill_between(
        curves.index, curves.min(axis=1), curves.max(axis=1), color=colour, alpha=0.2, linewidth=0
    )
    line = {"color": colour, "linestyle": style.choose_line_look(index)["linestyle"], **look}
    axes.plot(curves.index, curves.median(axis=1), label=title, **line)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
