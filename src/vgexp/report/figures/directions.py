"""Draws spectra, path lengths and shattering of a network at initialisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgexp.quantities import READOUT
from vgexp.report.figures import style
from vgexp.report.figures.layer_axis import choose_evenly, layers_across
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import (
    LARGEST,
    SMALLEST,
    clip_to_scale,
    log_line,
    log_scale,
)
from vgexp.report.figures.wanted import draws_table

_VALUES = ("largest", "median", "smallest")
_MOST_DISTANCES = 6


@draws_table("jacobian", "layer", "name", "largest")
@style.with_style
def jacobian(table: pd.DataFrame) -> Figure:
    """Singular values of each layer's Jacobian, and of the product from the input to each layer.

    Args:
        table: rows as in `jacobian.csv`.
    """
    figure, [each, product] = style.canvas(1, 2, width=11.6, height=4.6)
    rows = table.sort_values("layer")
    _draw_values(each, rows, {name: rows[name].to_numpy("float64") for name in _VALUES})
    for axes in (each, product):
        axes.set_ylabel("singular value")
    each.set_title("Jacobian of each layer")
    logs = {name: f"product_{name}_log10" for name in _VALUES}
    logs["bound: product of the largest"] = "product_bound_log10"
    _draw_values(product, rows, {name: _power(rows[column]) for name, column in logs.items()})
    product.set_title("Product of all from the input to here")
    for axes in (each, product):
        log_scale(axes)
        legend_below(axes)
    return figure


@draws_table("paths", "length", "share", "binomial")
def paths(table: pd.DataFrame) -> Figure:
    """Share of the gradient that paths of each length carry, beside their share of all paths.

    Args:
        table: rows as in `paths.csv`.
    """
    return style.draw_alone(_draw_paths, "Which lengths of path carry the gradient", table)


@draws_table("shattering", "layer", "inputs", "distance", "correlation")
def shattering(table: pd.DataFrame) -> Figure:
    """Correlation of gradients at inputs of several distances, against depth.

    Args:
        table: rows as in `shattering.csv`.
    """
    return style.draw_alone(_draw_shattering, "Do gradients at nearby inputs agree?", table)


def _draw_values(axes: Axes, rows: pd.DataFrame, values: dict[str, np.ndarray]) -> None:
    numbers = rows["layer"].to_numpy("int64")
    if np.isnan([*values.values()]).all():
        style.say(axes, "no singular value was measured")
        return
    is_readout = rows["name"].astype("str").str.startswith(READOUT).to_numpy()
    for index, (name, of_layers) in enumerate(values.items()):
        look = style.choose_line_look(index) | {"markevery": max(1, len(rows) // 20)}
        # Of few outputs there are few values, which do not go on with those of the layers.
        inside = np.where(is_readout, np.nan, of_layers)
        log_line(axes, numbers, inside, label=name, **look)
        if is_readout.any():
            apart = {**look, "linestyle": "none", "markevery": None}
            log_line(axes, numbers[is_readout], of_layers[is_readout], **apart)
    names = [
        READOUT if last else str(number) for number, last in zip(numbers, is_readout, strict=True)
    ]
    layers_across(axes, numbers, names)


def _power(log10: pd.Series) -> np.ndarray:
    """10^x within what a scale holds; 0 where there is no logarithm."""
    x = log10.to_numpy("float64")
    within = 10.0 ** np.clip(x, np.log10(SMALLEST), np.log10(LARGEST))
    return np.where(np.isneginf(x), 0.0, np.where(np.isposinf(x), np.inf, within))


def _draw_paths(axes: Axes, table: pd.DataFrame) -> None:
    rows = table.sort_values("length")
    share = clip_to_scale(rows["share"])
    if np.isnan(share).all():
        style.say(axes, "no gradient came back")
        return
    first = style.choose_line_look(0)["color"]
    axes.bar(rows["length"], share, color=first, alpha=0.75, label="share of the gradient")
    look: dict[str, Any] = {"color": style.INK, "marker": "o", "linestyle": "--", "linewidth": 1.2}
    axes.plot(rows["length"], rows["binomial"], label="share of the paths (binomial)", **look)
    axes.axhline(0, color=style.INK, linewidth=0.6)
    name = style.label(str(rows["name"].iloc[0]))
    axes.set_xlabel(f"branches passed between the loss and {name}")
    axes.set_ylabel("share")
    style.tick_whole_numbers(axes.xaxis)
    legend_below(axes)


def _draw_shattering(axes: Axes, table: pd.DataFrame) -> None:
    if not len(style.finite(table["correlation"])):
        style.say(axes, "no gradients were compared")
        return
    table = table[np.isfinite(table["correlation"].astype("float64"))]
    line, data = table[table["inputs"] == "line"], table[table["inputs"] == "data"]
    distances = np.unique(line["distance"].to_numpy("float64"))
    chosen = distances[choose_evenly(len(distances), _MOST_DISTANCES)]
    numbers = np.unique(table["layer"].to_numpy("int64"))
    for place, distance in enumerate(chosen):
        rows = line[line["distance"] == distance].sort_values("layer")
        look: dict[str, Any] = {
            "color": style.choose_shade(place / max(1, len(chosen) - 1)),
            "marker": "o",
        }
        axes.plot(rows["layer"], rows["correlation"], label=f"distance {distance:.3g}", **look)
    if len(data):
        rows = data.sort_values("layer")
        words = f"examples ({rows['distance'].iloc[0]:.3g})"
        look = {"color": style.INK, "linestyle": "--", "linewidth": 1.2}
        axes.plot(rows["layer"], rows["correlation"], label=words, **look)
    axes.set_ylim(min(0.0, *table["correlation"].dropna()) - 0.05, 1.05)
    axes.set_ylabel("cosine of the gradients at two inputs")
    layers_across(axes, numbers, [str(number) for number in numbers])
    axes.set_xlabel("layer (0: the input)")
    legend_below(axes)
