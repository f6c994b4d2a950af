"""Draws training over steps: loss, accuracy, gradient norm, clipped and skipped steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vgexp.report.comparing.bands import Line, running_mean, window_for
from vgexp.report.figures import events, style
from vgexp.report.figures.legends import legend_below
from vgexp.report.figures.logarithmic import clip_to_scale, log_line, log_scale
from vgexp.report.figures.thinning import choose_points
from vgexp.report.figures.wanted import draws_table

_MANY_TIMES, _HUGE = 100.0, 1e100
"""Largest over smallest loss, and the loss itself, from which on the axis is logarithmic."""
_EVENTS = ("clipped", "skipped")
_COLOUR, _VALIDATION, _TEST = "#0072B2", "#E69F00", "#009E73"


@draws_table("steps", "step", "loss", "accuracy")
@draws_table("evals", "step", "split", "loss", "accuracy")
@style.with_style
def learning_curves(
    steps: pd.DataFrame, evals: pd.DataFrame | None = None, constant_loss: float | None = None
) -> Figure:
    """Loss and, where it was measured, accuracy over steps, with clipped and skipped steps.

    Args:
        steps: rows as in `steps.csv`.
        evals: rows as in `evals.csv`.
        constant_loss: the best loss of a guess that ignores the input.
    """
    with_accuracy = has_accuracy(steps, evals)
    figure, panels = style.canvas(
        1, 2 if with_accuracy else 1, width=10.4 if with_accuracy else None
    )
    draw_loss(panels[0], steps, evals, constant_loss)
    panels[0].set_title("Loss")
    if with_accuracy:
        draw_accuracy(panels[1], steps, evals)
        panels[1].set_title("Accuracy")
    return figure


@draws_table("steps", "step", "grad_norm", "grad_norm_clipped")
def gradient_norms(steps: pd.DataFrame) -> Figure:
    """The gradient's norm over all parameters over steps, before and after clipping.

    Args:
        steps: rows as in `steps.csv`.
    """
    return style.draw_alone(draw_gradient_norms, "Gradient norm of the whole network", steps)


def draw_loss(
    axes: Axes,
    steps: pd.DataFrame,
    evals: pd.DataFrame | None = None,
    constant_loss: float | None = None,
    is_linear: bool = False,
) -> None:
    """Draws the loss into a panel.

    The scale is logarithmic where it spans more than two powers of ten, unless it `is_linear`.
    """
    losses = steps["loss"].to_numpy("float64")
    if not np.isfinite(losses).any():
        style.say(
            axes, "no loss was recorded" if not len(losses) else "no finite loss was recorded"
        )
        return
    _draw_curve(axes, steps, "loss")
    _draw_evals(axes, evals, "loss")
    if constant_loss is not None and np.isfinite(constant_loss):
        axes.axhline(
            constant_loss,
            color=style.INK,
            linestyle=":",
            label=f"constant guess {constant_loss:#.3g}",
        )
    _finish(axes, steps, losses, "loss", is_linear)


def draw_accuracy(axes: Axes, steps: pd.DataFrame, evals: pd.DataFrame | None = None) -> None:
    """Draws the accuracy into a panel, from 0 to 100 %."""
    if not has_accuracy(steps, evals):
        style.say(axes, "accuracy was not measured")
        return
    _draw_curve(axes, steps, "accuracy")
    _draw_evals(axes, evals, "accuracy")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    axes.set(xlabel="step", ylabel="share of right answers")
    style.tick_whole_numbers(axes.xaxis)
    legend_below(axes)


def has_accuracy(steps: pd.DataFrame, evals: pd.DataFrame | None = None) -> bool:
    """Whether some row of either table has an accuracy."""
    frames = [steps] if evals is None else [steps, evals]
    return any(len(style.finite(frame["accuracy"].astype("float64"))) > 0 for frame in frames)


def draw_gradient_norms(axes: Axes, steps: pd.DataFrame) -> None:
    """Draws `gradient_norms` into a panel."""
    norms = steps["grad_norm"].to_numpy("float64")
    if np.isnan(norms).all():
        style.say(axes, "grad_norm was not measured")
        return
    clipped = steps["grad_norm_clipped"].to_numpy("float64")
    is_clipped = bool((np.isfinite(clipped) & (clipped != norms)).any())
    x = steps["step"].to_numpy("float64")
    lines = [(norms, "before clipping" if is_clipped else "gradient norm", _COLOUR, 1.0)]
    if is_clipped:
        lines.append((clipped, "as the optimizer saw it", style.INK, 0.8))
    for values, words, colour, width in lines:
        places = choose_points(values)
        look: dict[str, Any] = {"color": colour, "linewidth": width}
        look["marker"] = _marker(len(places))
        log_line(axes, x[places], values[places], label=words, **look)
    handles = _strips(axes, steps)
    log_scale(axes, free_below=_room(handles))
    axes.set(xlabel="step", ylabel="L2 norm over all parameters")
    style.tick_whole_numbers(axes.xaxis)
    legend_below(axes, [*axes.get_legend_handles_labels()[0], *handles])


def _draw_curve(axes: Axes, steps: pd.DataFrame, column: str) -> None:
    """Each step, faint below a running mean where there are enough steps for one."""
    values = clip_to_scale(steps[column])
    if np.isnan(values).all():
        return
    raw = Line(steps["step"].to_numpy("float64"), values)
    num_steps = int(np.isfinite(values).sum())
    window = window_for(num_steps)
    plain: dict[str, Any] = {"linewidth": 1.2, "label": "training step"}
    looks = [(raw, plain)]
    if window > 1:
        means = {"linewidth": 1.8, "label": f"mean of the last {window} steps"}
        looks = [(raw, plain | {"alpha": 0.35, "linewidth": 0.8}),
                 (running_mean(raw, window), means)]  # fmt: skip
    for line, look in looks:
        places = choose_points(line.y)
        look |= {"color": _COLOUR, "marker": _marker(num_steps)}
        axes.plot(line.x[places], line.y[places], **look)


def _draw_evals(axes: Axes, evals: pd.DataFrame | None, column: str) -> None:
    if evals is None:
        return
    for split, words, colour, marker, size in (
        ("val", "validation", _VALIDATION, "D", 5.0),
        ("test", "test", _TEST, "*", 11.0),
    ):
        rows = evals[(evals["split"] == split) & np.isfinite(evals[column].astype("float64"))]
        if len(rows):
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": size}
            look |= {"markeredgecolor": style.INK, "markeredgewidth": 0.6, "linewidth": 0.8}
            axes.plot(rows["step"], rows[column].astype("float64"), label=words, zorder=3, **look)


def _finish(
    axes: Axes, steps: pd.DataFrame, losses: np.ndarray, name: str, is_linear: bool
) -> None:
    """Scale, strips of events, where the loss ended, names of axes, legend."""
    finite = style.finite(np.concatenate([np.asarray(x.get_ydata()) for x in axes.get_lines()]))
    handles = _strips(axes, steps)
    spans_much = finite.min() > 0 and finite.max() > min(_MANY_TIMES * finite.min(), _HUGE)
    if spans_much and not is_linear:
        log_scale(
            axes, include=(float(finite.min()), float(finite.max())), free_below=_room(handles)
        )
    else:
        extent = float(np.ptp(finite)) or max(abs(float(finite.max())), 1.0)
        low = finite.min() - extent * (0.04 + _room(handles))
        axes.set_ylim(low, finite.max() + 0.05 * extent)
    _mark_end(axes, steps["step"].to_numpy("float64"), losses)
    axes.set(xlabel="step", ylabel=f"{name}, mean over examples")
    style.tick_whole_numbers(axes.xaxis)
    legend_below(axes, [*axes.get_legend_handles_labels()[0], *handles])


def _mark_end(axes: Axes, x: np.ndarray, losses: np.ndarray) -> None:
    """A line at the first step whose loss is not finite."""
    lost = np.flatnonzero(~np.isfinite(losses))
    if lost.size:
        step = int(x[lost[0]])
        look: dict[str, Any] = {"color": style.NOT_FINITE.face, "linestyle": "--"}
        axes.axvline(step, label=f"not finite from step {step}", linewidth=1.4, **look)


def _strips(axes: Axes, steps: pd.DataFrame) -> list[Any]:
    handles: list[Any] = []
    for column in _EVENTS:
        if column in steps.columns:
            happened = (steps[column] == 1).fillna(False).to_numpy(dtype="bool")
            if happened.any():
                x = steps["step"].to_numpy("float64")
                handles.append(events.draw_strip(axes, x, happened, len(handles), column))
    return handles


def _room(handles: list[Any]) -> float:
    """What strips take of the panel's height."""
    return len(handles) * events.HEIGHT * 1.6


def _marker(num_points: int) -> str | None:
    return "o" if num_points < 3 else None
