"""Draws what a cure changed: the gradient of each layer, and the loss, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgexp.report.comparing.bands import Line, running_mean, window_for
from vgexp.report.figures import style
from vgexp.report.figures.beside import Beside
from vgexp.report.figures.layer_axis import layers_across
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import clip_to_scale, log_line, log_scale
from vgexp.report.figures.thinning import choose_points
from vgexp.report.grid import grid, numbers

_WIDTH, _HEIGHT = 10.4, 4.4
_BEFORE: dict[str, Any] = {"color": "#D55E00", "linestyle": (0, (5, 2))}
_AFTER: dict[str, Any] = {"color": "#0072B2", "linestyle": "-"}


@style.with_style
def before_after(before: Sequence[Beside], after: Sequence[Beside], title: str) -> Figure:
    """Draws the runs before and after a cure, one line a seed.

    On the left the gradient norm of each layer at the first measured step, on the right a running
    mean of the training loss. Both scales are logarithmic where values are far apart.

    Args:
        before, after: the runs, each at least one.
        title: what changed, such as the override.
    """
    figure, [gradient, loss] = style.canvas(1, 2, width=_WIDTH, height=_HEIGHT)
    for runs, look, name in ((before, _BEFORE, "before"), (after, _AFTER, "after")):
        for place, run in enumerate(runs):
            label = name if place == 0 else None
            _draw_gradient(gradient, run, {**look, "label": label})
            _draw_loss(loss, run, {**look, "label": label})
    log_scale(gradient)
    gradient.set_xlabel("layer")
    gradient.set_ylabel("gradient norm (L2)")
    gradient.set_title("Gradient of each layer at step 0")
    _finish_loss(loss, [*before, *after])
    for axes in (gradient, loss):
        legend_below(axes)
    figure.suptitle(style.label(title), x=0.01, ha="left", fontsize=11)
    return figure


def _draw_gradient(axes: Axes, run: Beside, look: dict[str, Any]) -> None:
    table = grid(run.layers, "grad_norm")
    if table.empty:
        return
    log_line(axes, numbers(table), table.iloc[:, 0], **look, marker="o", markersize=3.0)
    layers_across(axes, numbers(table), list(table.index))


def _draw_loss(axes: Axes, run: Beside, look: dict[str, Any]) -> None:
    values = clip_to_scale(run.steps["loss"])
    if np.isnan(values).all():
        return
    raw = Line(run.steps["step"].to_numpy("float64"), values)
    window = window_for(int(np.isfinite(values).sum()))
    line = running_mean(raw, window) if window > 1 else raw
    places = choose_points(line.y)
    marker = "o" if len(places) < 3 else ""
    axes.plot(line.x[places], line.y[places], **look, marker=marker)


def _finish_loss(axes: Axes, runs: Sequence[Beside]) -> None:
    guess = next((run.constant_loss for run in runs if run.constant_loss is not None), None)
    if guess is not None:
        axes.axhline(guess, color=style.INK, linestyle=":", label=f"constant guess {guess:#.3g}")
    values = np.concatenate([style.finite(run.steps["loss"]) for run in runs])
    values = values[values > 0]
    if values.size and values.max() > 100 * values.min():
        log_scale(axes)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_title("Training loss")
    style.tick_whole_numbers(axes.xaxis)
