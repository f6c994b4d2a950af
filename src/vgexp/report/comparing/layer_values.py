"""Columns of `layers.csv` at a step of each run: which there are, where they were measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from vgexp.errors import QuestionError, unknown
from vgexp.quantities import LAYERS
from vgexp.report.comparing.runs import PastRun

PICKS: Mapping[str, Callable[[list[int]], int]] = {"first": min, "last": max}
"""Name of a step -> which of those measured it is."""


def layer_metrics(runs: Sequence[PastRun]) -> list[str]:
    """The columns of numbers in the runs' `layers.csv`: the known ones and any further."""
    known = {column.name: column.kind for column in LAYERS}
    further = {
        name
        for run in runs
        for name in run.layers.columns
        if name not in known and run.layers.is_numeric(name)
    }
    return [name for name, kind in known.items() if kind == "float"] + sorted(further)


def require_step(runs: Sequence[PastRun], metric: str, step: str) -> None:
    """Checks that a column was measured at a step in some run.

    Raises:
        QuestionError: it was not; with the steps at which it was.
    """
    if step not in PICKS and not step.isdecimal():
        raise unknown("step", step, [*PICKS, "or a number"])
    measured = sorted({number for run in runs for number in run.layers.measured_steps(metric)})
    if not measured:
        gaps = [f"{run.folder}: {gap}" for run in runs for gap in run.gaps]
        raise QuestionError("\n".join([f"{metric} was measured at no step of these runs", *gaps]))
    if step not in PICKS and int(step) not in measured:
        nearest = min(measured, key=lambda number: abs(number - int(step)))
        raise QuestionError(
            f"{metric} was not measured at step {step}\n"
            f"allowed: first, last, {_listed(measured)}\nnearest: {nearest}"
        )


def layer_values(run: PastRun, metric: str, step: str) -> dict[str, float | None]:
    """Layer -> value at a step, or at the run's own first or last one."""
    measured = run.layers.measured_steps(metric)
    if step not in PICKS:
        return run.layers.values(metric, int(step))
    return run.layers.values(metric, PICKS[step](measured)) if measured else {}


def at_layer(metric: str, step: str, position: int, run: PastRun) -> float | None:
    """The value of a hidden layer: the first at `position` 0, the last at -1."""
    values = layer_values(run, metric, step)
    hidden = [value for layer, value in values.items() if layer != "readout"]
    return hidden[position] if hidden else None


def _listed(steps: Sequence[int]) -> str:
    """Steps in words; evenly spaced ones by their spacing."""
    gaps = {after - before for before, after in pairwise(steps[:-1])}
    if len(steps) > 8 and len(gaps) == 1:
        return f"every {gaps.pop()}th from {steps[0]} to {steps[-2]}, {steps[-1]}"
    return ", ".join(map(str, steps))
