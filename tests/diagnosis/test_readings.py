"""Summary metrics that are one value of a column: a declaration is all that they need.

Holds: diagnosis/readings.py, quantities/quantity.py, quantities/reading.py
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import STEADY, steps_of, summary_of

from vgexp.diagnosis.readings import read_metrics
from vgexp.quantities import SUMMARY, TABLES, Reading
from vgexp.quantities.quantity import magnitude

VALUES = [5.0, math.nan, 2.0, math.inf, 3.0]


@pytest.mark.parametrize(
    ("pick", "value"),
    [("first", 5.0), ("last", 3.0), ("lowest", 2.0), ("highest", 5.0), ("mean", math.inf)],
)
def test_a_metric_that_is_declared_is_read_and_nothing_else_is_needed(
    pick: Any, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading("steps", "grad_norm", pick)
    monkeypatch.setitem(SUMMARY, "new", magnitude("new", "of grad_norm", reading=reading))
    assert read_metrics({"steps": steps_of([1.0] * 5, grad_norm=VALUES)})["new"] == value
    assert summary_of(STEADY, [1.0] * 5)["new"] is None, "not measured"


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, math.nan]])
def test_without_a_value_there_is_no_metric(values: list[float]) -> None:
    found = read_metrics({"steps": steps_of(values)})
    assert found["loss_best"] is None or math.isnan(found["loss_best"])
    assert found["val_loss_last"] is None


def test_a_column_that_a_table_does_not_have_was_not_measured() -> None:
    assert read_metrics({"steps": pd.DataFrame({"step": [0]}), "evals": None})["loss_last"] is None


def test_running_means_are_those_of_plain_python() -> None:
    losses = np.random.default_rng(0).lognormal(0, 2, 50)
    means = [sum(losses[i : i + 20]) / 20 for i in range(31)]
    found = read_metrics({"steps": steps_of(losses)})
    names = ("loss_first_mean_20", "loss_last_mean_20", "loss_best_mean_20")
    assert [found[name] for name in names] == pytest.approx([means[0], means[-1], min(means)])


def test_every_reading_is_of_a_column_that_is_declared() -> None:
    for metric in SUMMARY.values():
        if metric.reading is not None:
            names = [column.name for column in TABLES[metric.reading.table]]
            assert metric.reading.column in names, metric.name
