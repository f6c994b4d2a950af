"""The attenuation over the last 20 steps.

Holds: diagnosis/at_end.py
"""

from __future__ import annotations

import math

import pandas as pd
import pytest

from vgexp.diagnosis.at_end import attenuation_at_end, geometric_mean


def layers_of(ratios: dict[int, float]) -> pd.DataFrame:
    """Step -> attenuation, as rows of two layers."""
    rows = [
        {"step": step, "layer": layer, "name": f"{layer}", "kind": "hidden", "delta_rms": delta}
        for step, ratio in ratios.items()
        for layer, delta in ((1, ratio), (2, 1.0))
    ]
    return pd.DataFrame(rows)


def test_it_is_the_geometric_mean_over_the_measured_steps_among_the_last_twenty() -> None:
    layers = layers_of({0: 1e-9, 79: 1e-9, 80: 0.1, 90: 0.4, 99: math.nan})
    assert attenuation_at_end(layers, None, 100, num_layers=2) == pytest.approx(0.2)
    assert attenuation_at_end(layers, None, 81, num_layers=2) == pytest.approx(
        (1e-9 * 0.1 * 0.4) ** (1 / 3)
    )


def test_of_a_recurrent_net_it_is_through_time() -> None:
    time = pd.DataFrame(
        [
            {"step": step, "layer": 1, "name": "1.h", "t": t, "delta_rms": delta}
            for step in (10, 50)
            for t, delta in ((0, 0.01 * step), (5, 1.0))
        ]
    )
    assert attenuation_at_end(layers_of({50: 7.0}), time, 60) == pytest.approx(0.5)


def test_nothing_measured_is_nan_and_a_zero_stays_one() -> None:
    assert math.isnan(attenuation_at_end(None, None, 10))
    assert math.isnan(attenuation_at_end(layers_of({0: 1.0}), None, 100))
    assert geometric_mean([0.0, 3.0, math.nan]) == 0
    assert geometric_mean([math.inf, 2.0]) == math.inf
