"""Draws several runs beside one another: gradient maps on one scale, and the loss below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from vgexp.diagnosis.signal import loss_scales
from vgexp.past import PastRun
from vgexp.report.figures import style
from vgexp.report.figures.heat import LEAST_DECADES, draw_gradient_map, draw_scale
from vgexp.report.figures.logarithmic import log_range
from vgexp.report.figures.overview import number
from vgexp.report.figures.training import draw_loss
from vgexp.report.grid import grid

_WIDTH, _HEIGHT = 3.4, 6.0
_LETTER_POINTS = 5.0
_LAYERS = ("step", "layer", "name", "kind", "grad_norm", "grad_max")
_STEPS = ("step", "loss", "clipped", "skipped", "loss_scale")


@dataclass(frozen=True)
class Beside:
    """A run that is drawn beside others: its title, its tables, and what a reader of them needs."""

    title: str
    layers: pd.DataFrame
    steps: pd.DataFrame
    """With a column `loss_scale` where gradients were computed at one."""
    constant_loss: float | None = None
    dtype: str | None = "float32"


def read_beside(folder: Path, title: str) -> Beside:
    """Reads a run folder's tables for `side_by_side`, with inf for a value that is nan.

    Raises:
        QuestionError: a table or the summary is missing or cannot be read.
    """
    run = PastRun(folder)
    return Beside(
        title,
        run.read_with_inf("layers", _LAYERS),
        run.read_with_inf("steps", _STEPS),
        number(run.require_summary().get("constant_loss")),
        run.dtype,
    )


@style.with_style
def side_by_side(runs: Sequence[Beside]) -> Figure:
    """Draws a column for each run: its gradient map above, its training loss below.

    The maps share one scale. The losses share an axis that leaves out the spikes of a few steps; a
    panel says how far its own go."""
    figure, panels = style.canvas(
        2, len(runs), width=_WIDTH * len(runs), height=_HEIGHT, height_ratios=[1.4, 1.0]
    )
    maps, curves = panels[: len(runs)], panels[len(runs) :]
    norms = np.concatenate([style.finite(grid(run.layers, "grad_norm")) for run in runs])
    limits = log_range(norms, LEAST_DECADES)
    highest = max(_highest(run.steps) for run in runs)
    for axes, run in zip(maps, runs, strict=True):
        draw_gradient_map(axes, run.layers, run.dtype, loss_scales(run.steps), limits)
        axes.set_title(style.label(run.title))
    draw_scale(maps, ScalarMappable(LogNorm(*limits), style.SEQUENTIAL), "gradient norm (L2)")
    for axes, run in zip(curves, runs, strict=True):
        draw_loss(axes, run.steps, constant_loss=run.constant_loss, is_linear=True)
        if axes.axison:
            axes.set_ylim(0, highest)
            _say_cut(axes, run.steps, highest)
    for axes in (*maps[1:], *curves[1:]):
        axes.set_ylabel("")
    _one_legend(figure, curves, [run.title for run in runs])
    return figure


def _highest(steps: pd.DataFrame) -> float:
    """The top of an axis of losses that the spikes of a few steps do not press flat."""
    losses = style.finite(steps["loss"])
    return 1.2 * float(np.quantile(losses, 0.995)) if losses.size and losses.max() > 0 else 1.0


def _say_cut(axes: Axes, steps: pd.DataFrame, highest: float) -> None:
    largest = float(style.finite(steps["loss"]).max())
    if largest > highest:
        axes.text(
            0.98, 0.97, f"cut off: up to {largest:.3g}",
            transform=axes.transAxes, ha="right", va="top", fontsize=9,
        )  # fmt: skip


def _one_legend(figure: Figure, panels: Sequence[Axes], titles: Sequence[str]) -> None:
    """Joins the panels' legends at the foot of the figure.

    An entry that holds a number and is not in all of them names its panel."""
    legends = [axes.get_legend() for axes in panels]
    entries = [
        (text.get_text(), handle, title)
        for legend, title in zip(legends, titles, strict=True)
        if legend is not None
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    ]
    counts = Counter(words for words, _, _ in entries)
    num_legends = sum(legend is not None for legend in legends)
    found: dict[str, Any] = {}
    for words, handle, title in entries:
        is_of_one = counts[words] < num_legends and any(map(str.isdigit, words))
        found.setdefault(f"{words} ({style.label(title)})" if is_of_one else words, handle)
    for legend in legends:
        if legend is not None:
            legend.remove()
    if found:
        columns = int(figure.get_figwidth() * 72 // (_LETTER_POINTS * max(map(len, found)) + 38))
        place: Any = "outside lower left"
        figure.legend(
            list(found.values()), list(found), loc=place, ncols=max(1, min(len(found), columns))
        )
