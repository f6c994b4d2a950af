"""Shows one run in the terminal (`vgexp show`): the verdict comes last, next to the prompt."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console
from rich.text import Text

from vgexp.past import PastRun
from vgexp.quantities import EVALS, READOUT
from vgexp.report.grid import Grid
from vgexp.report.terminal.cause import show_cause
from vgexp.report.terminal.curve import Plot, plot_width, show_plot
from vgexp.report.terminal.heat_map import show_heat_map
from vgexp.report.terminal.inks import inks_for
from vgexp.report.terminal.layout import printable, show_line, show_words
from vgexp.report.terminal.learning import of_accuracy, of_loss
from vgexp.report.terminal.metric import layers_of, make_grid, num_without_layer, require_metric
from vgexp.report.terminal.signals import against_depth, against_time
from vgexp.report.terminal.words import RUNNING, show_ending, show_notes, show_numbers

DEFAULT_METRIC = "grad_norm"
_SIGNAL = "delta_rms"
_OF_STEPS = ("step", "loss", "accuracy", "clipped", "skipped", "loss_scale")
_OF_WEIGHTS = "grad_norm"
_NO_EVALS = pd.DataFrame({column.name: [] for column in EVALS})


def show(console: Console, run: PastRun, metric: str = DEFAULT_METRIC) -> None:
    """Prints the heat map of a metric, the curves, the verdict, summary metrics and the folder.

    Args:
        run: not a strict one: what is missing or damaged is left out, and said at the end.

    Raises:
        QuestionError: `layers.csv` has no such column of numbers.
    """
    require_metric(run, metric)
    outcome = {**run.outcome, "status": RUNNING} if run.is_running else run.outcome
    layers = layers_of(run, metric, _SIGNAL, _OF_WEIGHTS)
    steps = run.table("steps", _OF_STEPS)
    signal = layers.get(_SIGNAL)
    _show_map(console, run, metric, layers.get(metric))
    time = run.table("time", ("step", "layer", "name", "t", _SIGNAL))
    _show_curves(
        console,
        [
            None if signal is None else against_depth(signal),
            None if time is None else against_time(time),
            *_learning(console, run, steps),
        ],
    )
    if signal is not None:
        signal = signal.assign(**{_OF_WEIGHTS: layers[_OF_WEIGHTS][_OF_WEIGHTS]})
    show_ending(console, run, outcome, signal)
    show_cause(console, run, outcome)
    console.print()
    show_numbers(console, outcome)
    show_notes(console, run.problems)
    show_line(console, f"Run folder: {run.folder}")


def _show_map(console: Console, run: PastRun, metric: str, frame: pd.DataFrame | None) -> None:
    title = f"{printable(metric, console)} by layer (rows) and measured step (columns)"
    console.print(Text(title, style="bold"))
    grid = None if frame is None else make_grid(run, frame, metric)
    if frame is None or grid is None or not grid.labels:
        show_words(console, f"  {metric} was measured at no step.", indent="  ")
    else:
        show_heat_map(console, grid, metric)
        if missing := _num_missing(run, grid):
            show_words(console, f"{missing} (probe.layers).")
        if unused := num_without_layer(run, frame):
            show_words(console, f"Not shown, since they have no layer: {unused} weights.")
    console.print()


def _num_missing(run: PastRun, grid: Grid) -> str:
    """Says how many hidden layers have no row; empty where all have one, or it is not known."""
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


def _learning(console: Console, run: PastRun, steps: pd.DataFrame | None) -> list[Plot | None]:
    if steps is None:
        return []
    evals = run.table("evals", ("step", "split", "loss", "accuracy"))
    evals = _NO_EVALS if evals is None else evals
    guess = run.summary.get("constant_loss")
    width = plot_width(console)
    level = float(guess) if isinstance(guess, float) and math.isfinite(guess) else None
    # In somebody's own loop the probe need not have seen a loss, which is not one that is nan.
    has_loss = steps["loss"].notna().any() or bool(run.is_measured("steps")["loss"].any())
    return [
        of_loss(steps, evals, width, inks_for(console), level) if has_loss else None,
        of_accuracy(steps, evals, width),
    ]
