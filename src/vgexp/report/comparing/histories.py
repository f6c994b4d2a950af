"""Metrics of a run over its steps: their names, tables and definitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from vgexp.errors import QuestionError, unknown
from vgexp.quantities import STEPS, SUMMARY, Quantity, column_of
from vgexp.report.comparing.bands import Line
from vgexp.report.comparing.layer_values import history_of_layer, layer_metrics
from vgexp.report.comparing.runs import ComparedRun

DEFAULT_METRIC = "loss"
"""The training loss of each update."""

SPLITS = ("train", "val", "test")
_EMPTY = Line(np.empty(0), np.empty(0))


@dataclass(frozen=True)
class MetricHistory:
    """A metric over steps: its label, its definition, and how it is read from a run."""

    quantity: Quantity
    label: str
    definition: str
    read: Callable[[ComparedRun], Line]
    """Without a value: an empty line."""
    where: str = ""
    """Which layer it is of."""


def histories(runs: Sequence[ComparedRun], name: str) -> list[MetricHistory]:
    """Finds the metrics that a name stands for.

    It names a column of steps.csv, `<split>_loss` or `<split>_accuracy` of evals.csv, or a column
    of layers.csv, which gives two: at the first and at the last hidden layer.

    `layers.` before a name that two tables have (`grad_norm`) says which is meant.

    Raises:
        QuestionError: no such metric; with those that there are.
    """
    steps = {column.name: column for column in STEPS if column.role == "value"}
    evaluations = [f"{split}_{name}" for split in SPLITS for name in ("loss", "accuracy")]
    if name in steps:
        column = steps[name]
        return [MetricHistory(column, column.label, column.definition, partial(_of_steps, name))]
    if name in evaluations:
        split, _, of_split = name.partition("_")
        column = column_of("evals", of_split)
        meaning = column.definition.replace("the split", f"the {split} split")
        return [MetricHistory(column, name, meaning, partial(_of_evaluations, split, of_split))]
    # Not before: a layers.csv that cannot be read does not matter to a loss.
    of_layers = layer_metrics(runs)
    metric = name.removeprefix("layers.")
    if metric in of_layers:
        column = column_of("layers", metric)
        return [
            MetricHistory(column, metric, column.definition, partial(_of_layer, metric, end), where)
            for end, where in ((0, "first hidden layer"), (-1, "last hidden layer"))
        ]
    if name in SUMMARY:
        raise QuestionError(
            f"{name} is one number a run, not one a step\n"
            f"allowed: a column of steps.csv, evals.csv or layers.csv; --heatmap color={name}"
        )
    twice = [f"layers.{metric}" for metric in of_layers if metric in steps]
    raise unknown("metric over steps", name, {*steps, *evaluations, *of_layers, *twice})


def _of_steps(column: str, run: ComparedRun) -> Line:
    frame = run.past.table("steps", ("step", column))
    if frame is None:
        return _EMPTY
    return _line(frame.drop_duplicates("step", keep="last").set_index("step")[column])


def _of_evaluations(split: str, column: str, run: ComparedRun) -> Line:
    frame = run.past.table("evals", ("step", "split", column))
    if frame is None:
        return _EMPTY
    frame = frame[frame["split"] == split].drop_duplicates("step", keep="last")
    return _line(frame.set_index("step")[column])


def _of_layer(metric: str, end: int, run: ComparedRun) -> Line:
    return _line(history_of_layer(run, metric, end))


def _line(values: pd.Series) -> Line:
    values = values.sort_index()
    return Line(
        values.index.to_numpy(dtype="float64"), values.to_numpy(dtype="float64", na_value=np.nan)
    )
