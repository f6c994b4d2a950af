"""A metric of a run over its steps: by which name, from which table, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from vgexp.diagnosis import FIGURES
from vgexp.errors import QuestionError, unknown
from vgexp.records import EVALS, LAYERS, STEPS
from vgexp.report.comparing.bands import Line
from vgexp.report.comparing.layer_figures import history_of_layer, layer_metrics
from vgexp.report.comparing.runs import ComparedRun

DEFAULT_METRIC = "loss"
"""The training loss of each update."""

SPLITS = ("train", "val", "test")
_EMPTY = Line(np.empty(0), np.empty(0))
# What does not vary from one batch to the next.
_SMOOTH = ("lr", "epoch", "loss_scale")
_NAMES = {"loss": "training loss", "accuracy": "training accuracy"}


@dataclass(frozen=True)
class History:
    """A metric over steps: what it is called, what it means, how it is read of a run."""

    metric: str
    """The column."""
    label: str
    definition: str
    read: Callable[[ComparedRun], Line]
    """Without a value: an empty line."""
    is_noisy: bool = False
    """Whether one value a batch scatters, so that a running mean says more."""
    where: str = ""
    """Which layer it is of."""


def histories(runs: Sequence[ComparedRun], name: str) -> list[History]:
    """What a name asks for: a column of steps.csv, `<split>_loss` or `<split>_accuracy` of
    evals.csv, or a column of layers.csv, then at the first and at the last hidden layer.

    `layers.` before a name that two tables have (`grad_norm`) says which is meant.

    Raises:
        QuestionError: no such metric; with those that there are.
    """
    steps = {column.name: column.definition for column in STEPS if column.name != "step"}
    evaluations = [f"{split}_{name}" for split in SPLITS for name in ("loss", "accuracy")]
    column = name.removeprefix("layers.")
    if name in steps:
        read, is_noisy = partial(_of_steps, name), name not in _SMOOTH
        return [History(name, _NAMES.get(name, name), steps[name], read, is_noisy)]
    if name in evaluations:
        split, _, figure = name.partition("_")
        meaning = next(known.definition for known in EVALS if known.name == figure)
        meaning = meaning.replace("the split", f"the {split} split")
        return [History(figure, name, meaning, partial(_of_evaluations, split, figure))]
    # Not before: a layers.csv that cannot be read does not matter to a loss.
    of_layers = layer_metrics(runs)
    if column in of_layers:
        meaning = next((known.definition for known in LAYERS if known.name == column), "")
        return [
            History(column, column, meaning, partial(_of_layer, column, end), where=f"{word} layer")
            for end, word in ((0, "first hidden"), (-1, "last hidden"))
        ]
    if name in {figure.name for figure in FIGURES}:
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
