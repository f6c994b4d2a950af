"""Which families theory speaks of, and where its predictions are written.

Holds: assembly/predictors.py, assembly/forecasts.py, theory/forecast.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vgexp import runs
from vgexp.assembly.forecasts import forecast_first_step
from vgexp.assembly.predictors import PREDICTORS
from vgexp.config import (
    AddingConfig,
    CnnConfig,
    Config,
    CopyConfig,
    GruConfig,
    LstmConfig,
    MlpConfig,
    OutputConfig,
    ProbeConfig,
    ResnetConfig,
    RnnConfig,
    TrainConfig,
)
from vgexp.diagnosis.through_time import time_metrics
from vgexp.runs.start import build_trainer
from vgexp.theory.forecast import Forecast

ADDING = AddingConfig(num_examples=64, seq_len=20, batch_size=16)
RECURRENT = Config(
    model=RnnConfig(depth=2, width=24),
    data=ADDING,
    train=TrainConfig(steps=2),
    probe=ProbeConfig(every=1),
    output=OutputConfig(quiet=True),
)


def test_the_table_names_configurations_of_families() -> None:
    assert {MlpConfig, CnnConfig, RnnConfig, LstmConfig, GruConfig} == set(PREDICTORS)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (Config(model=ResnetConfig(depth=8, width=4)), "model=resnet"),
        (dataclasses.replace(RECURRENT, model=LstmConfig(width=8)), "gates"),
        (dataclasses.replace(RECURRENT, model=GruConfig(width=8)), "gates"),
        (Config(model=RnnConfig(width=8), data=CopyConfig(num_examples=64, batch_size=16)), "once"),
        (Config(model=CnnConfig(depth=2, width=4, norm="batch")), "without norms"),
    ],
)
def test_of_others_a_reason_is_given(config: Config, word: str) -> None:
    found = forecast_first_step(config, build_trainer(config))
    assert not found.rows
    assert not found.times
    assert word in str(found.note)


def test_rows_of_convolutions_have_their_predictions(tmp_path: Path) -> None:
    config = Config(model=CnnConfig(depth=3, width=8), output=OutputConfig(quiet=True))
    config = dataclasses.replace(config, train=TrainConfig(steps=1))
    layers = runs.run(config, tmp_path / "a").layers
    start = layers[layers["step"] == 0]
    ratio = start["delta_rms"] / start["predicted_delta_rms"]
    assert len(start) == 4
    assert ratio.between(0.5, 2).all()


def test_states_have_their_predictions_at_step_0(tmp_path: Path) -> None:
    done = runs.run(RECURRENT, tmp_path / "a")
    time = done.table("time")
    start, later = time[time["step"] == 0], time[time["step"] > 0]
    assert len(later)
    assert later["predicted_delta_rms"].isna().all()
    # One draw of 24 units over 20 steps.
    ratio = start["delta_rms"] / start["predicted_delta_rms"]
    assert ratio.between(0.05, 20).all()
    assert ratio[start["t"] == 19].between(0.4, 2.5).all()
    assert done.summary["predicted_backward_factor_per_time_step"] == pytest.approx(
        done.summary["backward_factor_per_time_step"], rel=0.15
    )
    assert done.layers["predicted_delta_rms"].notna().sum() == 3


def test_the_predicted_factor_is_that_of_the_predicted_column() -> None:
    rows = {"step": 0, "layer": 1, "name": "layers.0.h", "t": [4, 9, 14]}
    time = pd.DataFrame({**rows, "delta_rms": [0.5, 0.5, 0.5], "predicted_delta_rms": np.nan})
    wanted = "predicted_backward_factor_per_time_step"
    assert np.isnan(time_metrics(time)[wanted])
    assert np.isnan(time_metrics(time.drop(columns="predicted_delta_rms"))[wanted])
    time["predicted_delta_rms"] = [0.8**10, 0.8**5, 1.0]
    assert time_metrics(time)[wanted] == pytest.approx(0.8, rel=1e-12)
    assert time_metrics(time)["backward_factor_per_time_step"] == pytest.approx(1)


def test_why_nothing_is_predicted_is_told_before_what_would_be_off() -> None:
    assert Forecast(reason="no theory", caveat="borders").note == "no theory"
    assert Forecast(caveat="borders").note == "borders"
    assert Forecast().note is None
