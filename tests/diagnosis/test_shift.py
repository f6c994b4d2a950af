"""Internal covariate shift against plain Python, on tables made and on tables measured.

Holds: diagnosis/shift.py
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from trainers import BASE, changed

import vgexp
from vgexp.config import OutputConfig, ProbeConfig, SgdConfig
from vgexp.diagnosis.shift import shift_metrics

Moments = dict[tuple[int, str], tuple[float, float]]
"""(step, name) -> mean and standard deviation."""


def frame(z: Moments, h: Moments, kinds: dict[str, tuple[int, str]]) -> pd.DataFrame:
    rows = []
    for (step, name), (mean, std) in z.items():
        act_mean, act_std = h.get((step, name), (math.nan, math.nan))
        layer, kind = kinds[name]
        rows.append(
            {
                "step": step,
                "layer": layer,
                "name": name,
                "kind": kind,
                "preact_mean": mean,
                "preact_std": std,
                "act_mean": act_mean,
                "act_std": act_std,
                "delta_rms": 1.0,
            }
        )
    return pd.DataFrame(rows)


KINDS = {"a": (1, "linear"), "gate": (1, "linear"), "b": (2, "linear"), "out": (3, "readout")}
Z: Moments = {
    (0, "a"): (0.0, 2.0),
    (0, "gate"): (9.0, 1.0),
    (0, "b"): (1.0, 1.0),
    (0, "out"): (0.0, 5.0),
    (1, "a"): (0.6, 2.8),
    (1, "gate"): (-9.0, 1.0),
    (1, "b"): (1.0, 1.5),
    (1, "out"): (9.0, 5.0),
    (4, "a"): (8.0, 8.0),
    (4, "gate"): (9.0, 1.0),
    (4, "b"): (4.0, 5.0),
    (4, "out"): (0.0, 5.0),
}


def test_the_distance_is_that_of_the_moments_over_the_earlier_deviation() -> None:
    h = {key: (mean / 2, std / 2) for key, (mean, std) in Z.items() if key[1] != "out"}
    found = shift_metrics(frame(Z, h, KINDS))
    # a: sqrt(0.6^2 + 0.8^2) / 2; b: 0.5 / 1. Steps 1 and 4 are no neighbours.
    assert found["shift_preact"] == pytest.approx((0.5 + 0.5) / 2)
    # a: sqrt(8^2 + 6^2) / 2; b: sqrt(3^2 + 4^2) / 1.
    assert found["drift_preact"] == pytest.approx((5 + 5) / 2)
    assert found["shift_act"] == pytest.approx(found["shift_preact"])
    assert found["drift_act"] == pytest.approx(found["drift_preact"])


def test_steps_in_any_order_are_the_same_and_units_do_not_count() -> None:
    h = {key: (mean + 1, std) for key, (mean, std) in Z.items() if key[1] != "out"}
    one = shift_metrics(frame(Z, h, KINDS))
    turned = {key: Z[key] for step in (4, 0, 1) for key in Z if key[0] == step}
    assert shift_metrics(frame(turned, h, KINDS)) == pytest.approx(one)
    scaled = {key: (1e3 * mean, 1e3 * std) for key, (mean, std) in Z.items()}
    assert shift_metrics(frame(scaled, h, KINDS)) == pytest.approx(one)


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (math.inf, 1.0), (0.0, math.inf)])
def test_what_is_not_finite_or_has_no_deviation_is_left_out(bad: tuple[float, float]) -> None:
    assert shift_metrics(frame({**Z, (1, "a"): bad}, {}, KINDS))["shift_preact"] == pytest.approx(
        0.5
    )
    flat = {**Z, (0, "a"): (0.0, 0.0)}
    assert shift_metrics(frame(flat, {}, KINDS))["shift_preact"] == pytest.approx(0.5)


def test_one_step_alone_and_none_at_all_shift_nothing() -> None:
    alone = frame({key: value for key, value in Z.items() if key[0] == 0}, {}, KINDS)
    for table in (alone, alone.head(0)):
        assert all(math.isnan(value) for value in shift_metrics(table).values())


def test_the_summary_has_what_the_table_says(tmp_path: Path) -> None:
    probe = ProbeConfig(every=7, activations_every=1)
    config = changed(BASE, probe=probe, output=OutputConfig(quiet=True), model={"skip": "highway"})
    run = vgexp.run(config, tmp_path / "run")
    rows: dict[str, Any] = {
        name: run.layers[run.layers["name"] == name].to_dict("records")
        for name in (f"layers.{i}.linear.weight" for i in range(3))
    }

    def distance(one: dict[str, float], other: dict[str, float], of: str) -> float:
        mean, std = (other[f"{of}_{k}"] - one[f"{of}_{k}"] for k in ("mean", "std"))
        return math.sqrt(mean**2 + std**2) / one[f"{of}_std"]

    for of in ("preact", "act"):
        each = [distance(a, b, of) for of_layer in rows.values() for a, b in pairwise(of_layer)]
        assert len(each) == 3 * 22
        assert run.summary[f"shift_{of}"] == pytest.approx(sum(each) / len(each))
        ends = [distance(of_layer[0], of_layer[-1], of) for of_layer in rows.values()]
        assert run.summary[f"drift_{of}"] == pytest.approx(sum(ends) / 3)


def test_a_cadence_without_neighbours_leaves_the_shift_empty(tmp_path: Path) -> None:
    probe = ProbeConfig(every=1, activations_every=5)
    config = changed(BASE, probe=probe, output=OutputConfig(quiet=True))
    summary = vgexp.run(config, tmp_path / "run").summary
    assert summary["shift_preact"] is None
    assert summary["drift_preact"] > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_batch_norm_holds_h_still_where_a_plain_net_drifts(seed: int, tmp_path: Path) -> None:
    drift = {}
    for norm in ("none", "batch"):
        config = changed(
            BASE,
            seed=seed,
            model={"norm": norm, "activation": "relu", "init": "he_normal", "width": 32},
            optimizer=SgdConfig(lr=0.1),
            train={"steps": 60},
            output=OutputConfig(quiet=True),
        )
        drift[norm] = vgexp.run(config, tmp_path / norm).summary["drift_act"]
    assert drift["batch"] < drift["none"] / 2
