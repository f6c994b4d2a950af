"""The verdict's truth table, and the metrics that a summary takes from tables.

Holds: diagnosis/verdict.py, diagnosis/cause.py
"""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from layer_tables import EXPLODING, NO_EVALS, STEADY, VANISHING, layers_of, steps_of, summary_of

from vgexp.diagnosis import has_learned, sentence, summarise, verdict_of


@pytest.mark.parametrize("num_steps", [1, 5, 19, 20, 21, 200])
def test_learning_is_the_best_mean_over_twenty_steps_below_nine_tenths(num_steps: int) -> None:
    low, high = 0.89, 0.91
    assert has_learned(steps_of([low] * num_steps), 1.0)
    assert not has_learned(steps_of([high] * num_steps), 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_learning_is_what_plain_python_over_windows_says(seed: int) -> None:
    losses = np.random.default_rng(seed).uniform(0.5, 1.5, 60).tolist()
    means = [math.fsum(losses[i : i + 20]) / 20 for i in range(41)]
    for constant in (min(means) / 0.9 * 0.999, min(means) / 0.9 * 1.001):
        assert has_learned(steps_of(losses), constant) == (min(means) < 0.9 * constant)


def test_a_short_dip_is_not_learning_and_a_huge_loss_before_does_not_hide_it() -> None:
    assert not has_learned(steps_of([1.0] * 30 + [0.5] * 3 + [1.0] * 30), 1.0)
    assert has_learned(steps_of([1e30] * 3 + [math.inf, math.nan] + [0.5] * 20), 1.0)
    assert not has_learned(steps_of([]), 1.0)
    assert not has_learned(steps_of([math.nan] * 30), 1.0)


@pytest.mark.parametrize(
    ("status", "has_diverged", "has_learned", "signal"),
    [
        *itertools.product(
            ("completed", "diverged", "stopped", "interrupted"),
            (False, True),
            (False, True),
            ("vanishing", "exploding", "steady"),
        )
    ],
)
def test_the_verdict_follows_its_truth_table(
    status: str, has_diverged: bool, has_learned: bool, signal: str
) -> None:
    table = {"vanishing": "vanishing", "exploding": "exploding", "steady": "stalled"}
    expected = "healthy" if has_learned else table[signal]
    if has_diverged or status == "diverged":
        expected = "diverged"
    assert verdict_of(status, has_diverged, has_learned, signal) == expected


@pytest.mark.parametrize(
    ("layers", "losses", "verdict", "cause"),
    [
        (VANISHING, [2.3] * 30, "vanishing", "gets, a fitted factor of 0.1 a layer"),
        (EXPLODING, [2.3] * 30, "exploding", "gets, a fitted factor of 10 a layer"),
        (STEADY, [2.3] * 30, "stalled", "best training loss 2.30, a constant guess's 2.30"),
        (VANISHING, [2.3] * 10 + [0.5] * 30, "healthy", "despite the vanishing signal"),
        (STEADY, [2.3, 0.5] * 20, "healthy", "best training loss 1.40"),
        (STEADY, [2.3, math.inf], "diverged", "the loss became inf at step 1"),
    ],
)
def test_a_summary_says_verdict_and_cause(
    layers: pd.DataFrame, losses: list[float], verdict: str, cause: str
) -> None:
    summary = summary_of(layers, losses)
    assert summary["verdict"] == verdict
    assert cause in summary["cause"]


def test_a_diverged_run_keeps_the_text_that_names_the_layer() -> None:
    nothing_finite = STEADY.assign(step=3, delta_rms=np.nan)
    both = pd.concat([STEADY, nothing_finite])
    text = "z of layers.4 became inf at step 3"
    summary = summary_of(both, [2.3, 2.2, 9.0], status="diverged", divergence=text)
    assert (summary["verdict"], summary["cause"]) == ("diverged", text)
    assert summary["attenuation"] == 1.0
    assert (summary["signal_last"], summary["attenuation_last"]) == (None, None)
    assert text in sentence(summary)


def test_the_last_signal_is_the_last_one_measured() -> None:
    weights_only = STEADY.assign(step=30, delta_rms=np.nan)
    both = pd.concat([STEADY, VANISHING.assign(step=20), weights_only])
    summary = summary_of(both, [2.3] * 31)
    assert (summary["signal"], summary["signal_last"]) == ("steady", "vanishing")
    assert summary["backward_factor_per_layer_last"] == pytest.approx(0.1)
    assert "vanishing at the end (1e-09)" in summary["cause"]


def test_first_last_and_best_figures_are_those_of_the_tables() -> None:
    losses = [3.0] + [2.0] * 10 + [1.0] * 20 + [1.5] * 9
    evals = pd.DataFrame(
        {
            "step": [0, 20, 40, 40],
            "split": ["val", "val", "val", "test"],
            "loss": [2.5, 1.1, 1.4, 1.3],
            "accuracy": [0.1, 0.7, 0.6, 0.65],
        }
    )
    layers = layers_of([0.0, 0.5, np.inf, 1.0])
    summary = summary_of(layers, losses, evals)
    assert (summary["loss_first"], summary["loss_last"], summary["loss_best"]) == (3.0, 1.5, 1.0)
    assert summary["loss_best_mean_20"] == 1.0
    assert summary["loss_last_mean_20"] == pytest.approx((11 * 1.0 + 9 * 1.5) / 20)
    assert (summary["val_loss_last"], summary["val_loss_best"]) == (1.4, 1.1)
    assert (summary["val_accuracy_last"], summary["val_accuracy_best"]) == (0.6, 0.7)
    assert (summary["test_loss"], summary["test_accuracy"]) == (1.3, 0.65)
    assert summary["layers_left_out"] == 2


def test_the_clip_fraction_is_the_share_of_clipped_steps() -> None:
    steps = steps_of([1.0] * 4, clipped=pd.array([1, 0, None, 1], dtype="Int64"))
    summary = summarise(
        STEADY,
        steps,
        NO_EVALS,
        constant_loss=1.0,
        num_examples=1,
        dtype="float32",
        status="completed",
        divergence=None,
    )
    assert summary["clip_fraction"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "layers", [STEADY.head(0), layers_of([np.nan] * 4), layers_of([np.inf, 1.0]), layers_of([0.0])]
)
@pytest.mark.parametrize("losses", [[], [math.nan], [math.inf, 1.0], [2.3]])
@pytest.mark.parametrize("status", ["completed", "diverged", "interrupted", "stopped"])
def test_every_summary_is_strict_json_and_has_a_sentence(
    layers: pd.DataFrame, losses: list[float], status: str
) -> None:
    summary = summary_of(layers, losses, status=status)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert sentence(summary).endswith(".")
    assert "None" not in sentence(summary)
