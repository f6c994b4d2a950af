"""`vgexp show`: one run from top to bottom, the verdict last, where the eye is when it is done."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console
from rich.text import Text

from vgexp.quantities import EVALS, READOUT
from vgexp.report.grid import Grid
from vgexp.report.terminal.curve import Plot, plot_width, show_plot
from vgexp.report.terminal.heat_map import show_heat_map
from vgexp.report.terminal.inks import inks_for
from vgexp.report.terminal.layout import printable, show_line, show_words
from vgexp.report.terminal.learning import of_accuracy, of_loss
from vgexp.report.terminal.recorded import Recorded
from vgexp.report.terminal.signals import against_depth, against_time
from vgexp.report.terminal.words import show_ending, show_notes, show_numbers

DEFAULT_METRIC = "grad_norm"
_SIGNAL = "delta_rms"
_OF_WEIGHTS = "grad_norm"
_NO_EVALS = pd.DataFrame({column.name: [] for column in EVALS})


def show(console: Console, run: Recorded, metric: str = DEFAULT_METRIC) -> None:
    """Prints the heat map of a metric, the curves, the verdict, summary metrics and the folder.

    Raises:
        QuestionError: `layers.csv` has no such column of numbers.
    """
    run.require_metric(metric)
    layers = run.layers({metric, _SIGNAL, _OF_WEIGHTS})
    signal = layers.get(_SIGNAL)
    _show_map(console, run, metric, layers.get(metric))
    time = run.table("time", ("step", "layer", "name", "t", _SIGNAL))
    _show_curves(
        console,
        [
            None if signal is None else against_depth(signal),
            None if time is None else against_time(time),
            *_learning(console, run),
        ],
    )
    if signal is not None:
        signal = signal.assign(**{_OF_WEIGHTS: layers[_OF_WEIGHTS][_OF_WEIGHTS]})
    show_ending(console, run, signal)
    console.print()
    show_numbers(console, run.summary)
    show_notes(console, run)
    show_line(console, f"Run folder: {run.folder}")


def _show_map(console: Console, run: Recorded, metric: str, frame: pd.DataFrame | None) -> None:
    title = f"{printable(metric, console)} by layer (rows) and measured step (columns)"
    console.print(Text(title, style="bold"))
    grid = None if frame is None else run.grid(frame, metric)
    if frame is None or grid is None or not grid.labels:
        show_words(console, f"  {metric} was measured at no step.", indent="  ")
    else:
        show_heat_map(console, grid, metric)
        if missing := _num_missing(run, grid):
            show_words(console, f"{missing} (probe.layers).")
        if unused := run.num_without_layer(frame):
            show_words(console, f"Not shown, for no forward pass used them: {unused} weights.")
    console.print()


def _num_missing(run: Recorded, grid: Grid) -> str:
    """How many hidden layers have no row, in words; empty where all have, or nobody knows."""
    whole = run.summary.get("num_layers")
    shown = sum(label != READOUT for label in grid.labels)
    if not isinstance(whole, int) or shown >= whole:
        return ""
    return f"Not measured, hence not shown: {whole - shown} of {whole} hidden layers"


def _show_curves(console: Console, plots: list[Plot | None]) -> None:
    for plot in plots:
        if plot is not None:
            show_plot(console, plot)
            console.print()


def _learning(console: Console, run: Recorded) -> list[Plot | None]:
    steps = run.steps
    if steps is None:
        return []
    evals = run.table("evals", ("step", "split", "loss", "accuracy"))
    evals = _NO_EVALS if evals is None else evals
    guess = run.summary.get("constant_loss")
    width = plot_width(console)
    level = float(guess) if isinstance(guess, float) and math.isfinite(guess) else None
    return [
        of_loss(steps, evals, width, inks_for(console), level),
        of_accuracy(steps, evals, width),
    ]
