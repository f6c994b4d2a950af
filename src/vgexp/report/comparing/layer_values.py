"""Reads columns of `layers.csv`: which a run has, at which steps, and their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pandas as pd

from vgexp.errors import QuestionError, unknown
from vgexp.quantities import LAYERS, READOUT
from vgexp.report.comparing.runs import ComparedRun
from vgexp.report.grid import path_of
from vgexp.tables import HAS_VALUE

PICKS: Mapping[str, Callable[[list[int]], int]] = {"first": min, "last": max}
"""Name of a step -> which of those measured it is."""


def layer_metrics(runs: Sequence[ComparedRun]) -> list[str]:
    """Lists the columns of numbers in the runs' `layers.csv`: the known ones, then others."""
    known = {column.name: column.kind for column in LAYERS}
    further = {
        name
        for run in runs
        for name in run.past.columns("layers")
        if name not in known and run.past.is_numeric("layers", name)
    }
    return [name for name, kind in known.items() if kind == "float"] + sorted(further)


def require_step(runs: Sequence[ComparedRun], metric: str, step: str) -> None:
    """Checks that a column was measured at a step in some run.

    Raises:
        QuestionError: it was not; with the steps at which it was.
    """
    if step not in PICKS and not step.isdecimal():
        raise unknown("step", step, [*PICKS, "or a number"])
    measured = sorted({number for run in runs for number in measured_steps(run, metric)})
    if not measured:
        gaps = [f"{run.folder}: {gap}" for run in runs for gap in run.gaps]
        raise QuestionError("\n".join([f"{metric} was measured at no step of these runs", *gaps]))
    if step not in PICKS and int(step) not in measured:
        nearest = min(measured, key=lambda number: abs(number - int(step)))
        raise QuestionError(
            f"{metric} was not measured at step {step}\n"
            f"allowed: first, last, {_list_steps(measured)}\nnearest: {nearest}"
        )


def measured_steps(run: ComparedRun, metric: str) -> list[int]:
    """Lists the steps at which a column has a value, even if that is nan."""
    frame = _rows(run, metric)
    return [] if frame is None else sorted(frame.loc[frame[HAS_VALUE], "step"].unique().tolist())


def layer_values(run: ComparedRun, metric: str, step: str) -> dict[str, float | None]:
    """Reads a column at a step, or at the run's first or last one, for each main-path layer.

    `readout` comes last. An empty cell is None. A block has what `path_of` makes of its weights.
    """
    measured = measured_steps(run, metric) if step in PICKS else [int(step)]
    frame = _rows(run, metric)
    if frame is None or not measured:
        return {}
    number = PICKS[step](measured) if step in PICKS else int(step)
    path, _ = path_of(frame[frame["step"] == number], metric)
    ordered = path.sort_values("layer", kind="stable")
    found: dict[str, float | None] = {}
    for is_last in (False, True):
        rows = ordered[(ordered["kind"] == READOUT) == is_last]
        names = [READOUT] * len(rows) if is_last else map(str, rows["layer"])
        cells = zip(names, rows[metric].tolist(), rows[HAS_VALUE], strict=True)
        found |= {name: value if has_value else None for name, value, has_value in cells}
    return found


def history_of_layer(run: ComparedRun, metric: str, end: int) -> pd.Series:
    """Reads a column over steps at the first (`end` 0) or the last (-1) hidden layer with a row.

    Steps without a value are left out.
    """
    frame = _rows(run, metric)
    if frame is None:
        return pd.Series(dtype="float64")
    path, _ = path_of(frame, metric)
    ordered = path[path["kind"] != READOUT].sort_values(["step", "layer"], kind="stable")
    at_end = ordered.drop_duplicates("step", keep="last" if end else "first")
    return at_end[at_end[HAS_VALUE]].set_index("step")[metric]


def at_layer(metric: str, step: str, position: int, run: ComparedRun) -> float | None:
    """Reads a column at one hidden layer: `position` 0 is the first, -1 the last."""
    values = layer_values(run, metric, step)
    hidden = [value for layer, value in values.items() if layer != "readout"]
    return hidden[position] if hidden else None


def _rows(run: ComparedRun, metric: str) -> pd.DataFrame | None:
    """The rows of `layers.csv` with a column; None where they cannot be read."""
    return run.past.layers([metric]).get(metric)


def _list_steps(steps: Sequence[int]) -> str:
    """Lists steps in words; names the spacing of evenly spaced ones."""
    gaps = {after - before for before, after in pairwise(steps[:-1])}
    if len(steps) > 8 and len(gaps) == 1:
        return f"every {gaps.pop()}th from {steps[0]} to {steps[-2]}, {steps[-1]}"
    return ", ".join(map(str, steps))
