"""Several runs beside one another: the gradient of each layer on one scale, and the loss below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from vgexp.report.figures import style
from vgexp.report.figures.heat import LEAST_DECADES, draw_gradient_map, draw_scale
from vgexp.report.figures.logarithmic import log_range
from vgexp.report.figures.training import draw_loss
from vgexp.report.grid import grid

_WIDTH, _HEIGHT = 3.4, 6.0


@dataclass(frozen=True)
class Beside:
    """A run as it stands beside others: its title, and its tables."""

    title: str
    layers: pd.DataFrame
    steps: pd.DataFrame
    constant_loss: float | None = None


@style.drawn
def side_by_side(runs: Sequence[Beside]) -> Figure:
    """A column a run: above, its gradient map, all on one scale; below, its training loss."""
    figure, panels = style.canvas(
        2, len(runs), width=_WIDTH * len(runs), height=_HEIGHT, height_ratios=[1.4, 1.0]
    )
    maps, curves = panels[: len(runs)], panels[len(runs) :]
    norms = np.concatenate([style.finite(grid(run.layers, "grad_norm")) for run in runs])
    limits = log_range(norms, LEAST_DECADES)
    highest = max(_highest(run.steps) for run in runs)
    for axes, run in zip(maps, runs, strict=True):
        draw_gradient_map(axes, run.layers, limits=limits)
        axes.set_title(style.label(run.title))
    draw_scale(maps, ScalarMappable(LogNorm(*limits), style.SEQUENTIAL), "gradient norm (L2)")
    for axes, run in zip(curves, runs, strict=True):
        draw_loss(axes, run.steps, constant_loss=run.constant_loss, is_linear=True)
        if axes.axison:
            axes.set_ylim(0, highest)
    for axes in (*maps[1:], *curves[1:]):
        axes.set_ylabel("")
    for axes in curves[1:]:
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    return figure


def _highest(steps: pd.DataFrame) -> float:
    """The top of an axis of losses that the spikes of a few steps do not press flat."""
    losses = style.finite(steps["loss"])
    return 1.2 * float(np.quantile(losses, 0.995)) if losses.size and losses.max() > 0 else 1.0
