"""What curvature tells of a loss: the figures of its table, and three kinds of flat loss.

Holds: diagnosis/landscape.py
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vgexp import runs
from vgexp.config import Config, MlpConfig, OutputConfig, ProbeConfig, SgdConfig, TrainConfig
from vgexp.diagnosis import Evidence, compose, examine, sentence
from vgexp.diagnosis.landscape import FLAT_BELOW, landscape_metrics
from vgexp.quantities import CURVATURE

LIMIT = 20.0


def table(largest: list[float], smallest: float = 0.0, limit: float | None = LIMIT) -> pd.DataFrame:
    frame = pd.DataFrame({column.name: np.nan for column in CURVATURE}, range(len(largest)))
    return frame.assign(
        step=range(len(largest)), hessian_max=largest, hessian_min=smallest, stability_limit=limit
    )


def words(largest: list[float], verdict: str | None, **more: Any) -> str:
    figures = landscape_metrics(table(largest, **more))
    finite = {key: value if math.isfinite(value) else None for key, value in figures.items()}
    return compose(examine(Evidence({"verdict": verdict, **finite})))


def test_figures_are_of_the_first_the_last_the_middle_and_the_largest() -> None:
    figures = landscape_metrics(table([10.0, 30.0, 2.0, 50.0, 4.0], smallest=-60.0))
    assert figures == {
        "sharpness_first": 10.0,
        "sharpness_last": 4.0,
        "sharpness_over_limit": 0.5,
        "curvature_over_limit_max": 3.0,
    }


def test_of_two_measurements_the_lower_one_is_the_middle() -> None:
    assert landscape_metrics(table([40.0, 10.0]))["sharpness_over_limit"] == 0.5


def test_rows_that_are_not_finite_are_left_out() -> None:
    figures = landscape_metrics(table([10.0, math.inf, math.nan]))
    assert (figures["sharpness_last"], figures["curvature_over_limit_max"]) == (10.0, 0.5)


@pytest.mark.parametrize(
    "curvature", [None, table([]), table([math.nan]), table([math.nan, math.inf])]
)
def test_without_a_finite_row_there_is_no_figure_and_no_word(
    curvature: pd.DataFrame | None,
) -> None:
    figures = landscape_metrics(curvature)
    assert all(math.isnan(value) for value in figures.values())
    assert not examine(Evidence({"verdict": "stalled", **dict.fromkeys(figures)}))


def test_where_the_limit_is_unknown_the_eigenvalue_alone_is_told() -> None:
    told = words([10.0, 7.0], "stalled", limit=None)
    assert told == "The largest Hessian eigenvalue was 7 at the end."


def test_a_limit_of_infinity_where_the_learning_rate_is_zero_is_borne() -> None:
    assert "flat" in words([10.0], "stalled", limit=math.inf)


@pytest.mark.parametrize(
    ("largest", "verdict", "opening"),
    [
        ([2.4] * 3, "vanishing", "The signal is lost, the landscape is not flat: the largest"),
        ([0.09] * 3, "vanishing", "The landscape is flat: no Hessian eigenvalue was above 0.0045"),
        ([0.09] * 3, "stalled", "The landscape is flat: no Hessian eigenvalue was above 0.0045"),
        ([0.0] * 3, "stalled", "The landscape is flat: no Hessian eigenvalue was above 0 of"),
        ([50.0] * 3, "stalled", "The step is too large for the curvature: the largest Hessian"),
        ([50.0] * 3, "diverged", "The step is too large for the curvature: the largest Hessian"),
        (
            [21.0] * 3,
            "healthy",
            "The largest Hessian eigenvalue was mostly 1.1 times the stability",
        ),
        ([10.0] * 3, "healthy", "The largest Hessian eigenvalue was mostly 0.5 of the stability"),
        (
            [0.09] * 3,
            "healthy",
            "The largest Hessian eigenvalue was mostly 0.0045 of the stability",
        ),
        ([10.0] * 3, "stalled", "The largest Hessian eigenvalue was mostly 0.5 of the stability"),
        ([10.0] * 3, None, "The largest Hessian eigenvalue was mostly 0.5 of the stability"),
    ],
)
def test_three_kinds_of_flat_loss_are_told_apart(
    largest: list[float], verdict: str | None, opening: str
) -> None:
    assert words(largest, verdict).startswith(opening)


def test_what_was_bent_once_is_not_called_flat() -> None:
    below, above = 0.99 * FLAT_BELOW * LIMIT, 1.01 * FLAT_BELOW * LIMIT
    assert "is flat" in words([below, below], "stalled")
    assert "is flat" not in words([below, above, below], "stalled")
    assert "is flat" not in words([below, below], "stalled", smallest=-above)


KINDS = {
    "The signal is lost": (
        MlpConfig(depth=12, width=16, activation="sigmoid", init="xavier_normal"),
        0.1,
    ),
    "The landscape is flat": (
        MlpConfig(depth=3, width=16, activation="tanh", gain=0.02, bias=False),
        0.1,
    ),
    "The step is too large": (MlpConfig(depth=3, width=32, activation="tanh"), 5.0),
}


@pytest.mark.parametrize("opening", KINDS)
def test_a_run_of_each_kind_says_which_it_is(opening: str, tmp_path: Path) -> None:
    model, lr = KINDS[opening]
    config = Config(
        model=model,
        optimizer=SgdConfig(lr=lr),
        train=TrainConfig(steps=25, eval_every=0),
        probe=ProbeConfig(curvature_every=5),
        output=OutputConfig(quiet=True),
        device="cpu",
    )
    run = runs.run(config, tmp_path / "run")
    told = sentence(run.summary)
    assert [kind for kind in KINDS if kind in told] == [opening]
    assert run.summary["sharpness_first"] == run.curvature["hessian_max"].iloc[0]
    assert list(run.curvature["step"]) == [0, 5, 10, 15, 20, 24]
