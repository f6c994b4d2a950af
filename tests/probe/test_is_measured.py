"""In a frame NaN is both what is not finite and what was not measured; `is_measured` tells which.

Holds: probe/probe.py, records.py, past/run.py, runs/past.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import vgexp
from vgexp import Probe, diagnose
from vgexp.errors import QuestionError
from vgexp.quantities import LAYERS
from vgexp.sinks.csv_files import CsvFiles


def probed(poison: bool) -> Probe:
    """Two steps, of which the second measures weights only; the read-out has no activation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1, activations_every=2) as probe:
        for _ in range(2):
            x = torch.randn(6, 4)
            if poison:
                x[0, 0] = torch.nan
            model(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return probe


def test_a_value_that_is_nan_is_measured_and_an_empty_cell_is_not() -> None:
    probe = probed(poison=True)
    frame, measured = probe.to_frame(), probe.is_measured()
    assert list(measured) == list(frame) == [column.name for column in LAYERS]
    assert measured.index.equals(frame.index)
    assert set(measured.dtypes) == {np.dtype(bool)}
    assert frame["act_std"].isna().all()
    assert measured["act_std"].tolist() == [True, False, False, False]
    assert measured["grad_norm"].all()
    assert frame["grad_norm"].isna().any()
    assert (measured | frame.isna()).to_numpy().all()


def test_of_finite_values_it_says_what_notna_says_and_numbers_are_plain_floats() -> None:
    probe = probed(poison=False)
    frame, measured = probe.to_frame(), probe.is_measured()
    pd.testing.assert_frame_equal(measured, frame.notna())
    assert frame["act_std"].dtype == np.dtype("float64")
    assert "layer" in diagnose(frame).sentence


def test_a_table_that_was_written_says_the_same(tmp_path: Path) -> None:
    drained = probed(poison=True)
    written = CsvFiles(tmp_path, ["layers"])
    for each in (rows for rows in drained.drain() if rows.table == "layers"):
        written(each)
    written.close()
    (tmp_path / "config.yaml").write_text("{}")
    run = vgexp.runs.Run(tmp_path)
    probe = probed(poison=True)
    measured = probe.is_measured()
    pd.testing.assert_frame_equal(run.is_measured("layers")[list(measured)], measured)
    pd.testing.assert_frame_equal(run.layers[list(measured)].notna(), probe.to_frame().notna())


def test_a_column_that_an_older_table_lacks_was_not_measured() -> None:
    recorded = Path(__file__).parents[1] / "recorded" / "run"
    run = vgexp.load(recorded)
    measured = run.is_measured()
    assert not measured["act_max"].any()
    assert run.layers["act_max"].isna().all()
    assert measured["grad_norm"].all()


def test_a_table_that_is_not_measured_is_refused() -> None:
    with pytest.raises(QuestionError, match="histograms_every"):
        probed(poison=False).is_measured("histograms")
    with pytest.raises(QuestionError, match="table"):
        probed(poison=False).is_measured("nothing")
