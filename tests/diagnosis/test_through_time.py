"""The gradient through time as figures, against a chain of one unit.

Holds: diagnosis/through_time.py
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

import vgexp
from vgexp.config import AddingConfig, Config, OutputConfig, RnnConfig, TrainConfig
from vgexp.diagnosis import sentence
from vgexp.diagnosis.through_time import time_metrics


def states(deltas: list[float], layer: int = 1, name: str = "layers.0.h") -> pd.DataFrame:
    times = range(4, 4 + 5 * len(deltas), 5)
    rows = {"step": 0, "layer": layer, "name": name, "t": list(times), "delta_rms": deltas}
    return pd.DataFrame(rows)


def test_a_power_of_the_distance_is_its_factor() -> None:
    figures = time_metrics(states([0.9 ** (45 - 5 * k) for k in range(10)]))
    assert figures["backward_factor_per_time_step"] == pytest.approx(0.9, rel=1e-12)
    assert figures["time_attenuation"] == pytest.approx(0.9**45, rel=1e-12)


def test_the_last_layer_s_h_at_the_first_step_counts() -> None:
    wanted = states([0.25, 0.5, 1.0], layer=2, name="layers.1.h")
    others = [
        states([9.0, 3.0, 1.0]),
        states([7.0, 7.0, 7.0], layer=2, name="layers.1.c"),
        states([5.0, 1.0, 5.0], layer=2, name="layers.1.h").assign(step=20),
    ]
    figures, alone = time_metrics(pd.concat([*others, wanted.iloc[::-1]])), time_metrics(wanted)
    for name in ("backward_factor_per_time_step", "time_attenuation"):
        assert figures[name] == alone[name] == alone[f"{name}_last"]
    assert figures["time_attenuation_last"] == 1


def test_states_that_get_nothing_take_no_part_in_the_line() -> None:
    figures = time_metrics(states([0.0, 0.25, 0.5, 1.0]))
    assert figures["backward_factor_per_time_step"] == pytest.approx(0.5**0.2)
    assert figures["time_attenuation"] == 0


@pytest.mark.parametrize("time", [None, states([])])
def test_without_states_nothing_is_told(time: pd.DataFrame | None) -> None:
    assert all(math.isnan(value) for value in time_metrics(time).values())


@pytest.mark.parametrize(
    ("radius", "words"),
    [
        (0.5, "gets 7.5e-09 of what the last gets, a fitted factor of 0.5 a step"),
        (1.0, "gets 1 of what the last gets, a fitted factor of 1 a step"),
        (1.25, "gets 4.1e+02 times what the last gets, a fitted factor of 1.2 a step"),
    ],
)
def test_a_linear_unit_passes_on_its_radius_a_step(
    radius: float, words: str, tmp_path: Path
) -> None:
    config = Config(
        model=RnnConfig(width=1, activation="linear", spectral_radius=radius),
        data=AddingConfig(seq_len=30, num_examples=200, batch_size=16),
        train=TrainConfig(steps=1, eval_every=0),
        output=OutputConfig(quiet=True),
        dtype="float64",
    )
    summary = vgexp.run(config, tmp_path / "run").summary
    assert summary["backward_factor_per_time_step"] == pytest.approx(radius, rel=1e-9)
    assert summary["time_attenuation"] == pytest.approx(radius**27, rel=1e-9)
    assert words in sentence(summary)
