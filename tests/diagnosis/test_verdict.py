"""The verdict's truth table, and the metrics that a summary takes from tables.

Holds: diagnosis/verdict.py, diagnosis/cause.py, quantities/verdicts.py
"""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import EXPLODING, NO_EVALS, STEADY, VANISHING, layers_of, steps_of, summary_of

from vgexp.diagnosis import Learning, sentence, summarise, verdict_of
from vgexp.diagnosis.learning import ENOUGH_STEPS, LEARNED_BELOW
from vgexp.diagnosis.signal import EXPLODING_ABOVE, VANISHING_BELOW
from vgexp.quantities import NUM_STEPS_AVERAGED, VERDICTS


@pytest.mark.parametrize("signal", ["vanishing", "exploding", "steady", None])
@pytest.mark.parametrize("is_short", [False, True])
@pytest.mark.parametrize("status", ["completed", "diverged", "stopped", "interrupted"])
@pytest.mark.parametrize("has_diverged", [False, True])
@pytest.mark.parametrize(
    ("learned", "keeps", "expected"),
    [(True, True, "healthy"), (True, False, "relapsed"), (False, False, ""), (None, None, None)],
)
def test_the_verdict_follows_its_truth_table(
    learned: bool | None,
    keeps: bool | None,
    expected: str | None,
    has_diverged: bool,
    status: str,
    is_short: bool,
    signal: str | None,
) -> None:
    if expected == "":
        without_signal = "undecided" if is_short else "stalled"
        expected = signal if signal in ("vanishing", "exploding") else without_signal
    if has_diverged or status == "diverged":
        expected = "diverged"
    learning = Learning(learned, keeps, is_short, None)
    assert verdict_of(status, has_diverged, learning, signal) == expected
    assert expected is None or expected in VERDICTS


@pytest.mark.parametrize(
    ("layers", "losses", "verdict", "cause"),
    [
        (VANISHING, [2.3] * 30, "vanishing", "gets, a fitted factor of 0.1 a layer"),
        (EXPLODING, [2.3] * 30, "exploding", "gets, a fitted factor of 10 a layer"),
        (STEADY, [2.3] * 100, "stalled", "best training loss 2.30, a constant guess's 2.30"),
        (STEADY, [2.3] * 99, "undecided", "too short to tell (99 steps of at least 100): best"),
        (
            STEADY,
            np.linspace(3.5, 2.5, 100),
            "undecided",
            "too short to tell (after 100 steps the loss still falls): best training loss 2.60, a",
        ),
        (VANISHING, [2.3] * 9, "vanishing", "gets, a fitted factor of 0.1 a layer"),
        (
            STEADY,
            [2.8] + [1.0] * 40 + [2.3] * 40,
            "relapsed",
            "it had learned until step 56: best training loss 1.00, a constant guess's 2.30, the"
            " last 2.30",
        ),
        (VANISHING, [2.8] + [1.0] * 40 + [2.3] * 40, "relapsed", "until step 56"),
        (VANISHING, [2.3] * 10 + [0.5] * 30, "healthy", "despite the vanishing signal"),
        (STEADY, [2.3, 0.5] * 20, "healthy", "best training loss 1.40"),
        (STEADY, [2.3, math.inf], "diverged", "the loss became inf at step 1"),
    ],
)
def test_a_summary_says_verdict_and_cause(
    layers: pd.DataFrame, losses: Any, verdict: str, cause: str
) -> None:
    summary = summary_of(layers, losses)
    assert summary["verdict"] == verdict
    assert cause in summary["cause"]


def test_the_rules_in_words_have_the_numbers_of_the_rules() -> None:
    assert f"below {LEARNED_BELOW} of" in VERDICTS["healthy"]
    assert f"over {NUM_STEPS_AVERAGED} steps" in " ".join(VERDICTS["healthy"].split())
    assert f"fewer than {ENOUGH_STEPS} steps" in VERDICTS["undecided"]
    assert f"than 1/{1 / VANISHING_BELOW:.0f}" in VERDICTS["vanishing"]
    assert f"than {EXPLODING_ABOVE:.0f} times" in VERDICTS["exploding"]


def test_a_net_that_ends_at_chance_is_not_said_to_have_learned() -> None:
    losses = [2.83] + [1.0] * 40 + [2.31] * 40
    summary = summary_of(STEADY, losses)
    assert (summary["verdict"], summary["relapse_step"]) == ("relapsed", 56)
    assert summary["depth_trained"] == 0
    assert (
        "It learned and lost it after step 56: the training loss was 2.83 at the first step, 1.00"
        " over the best 20 steps and 2.31 over the last 20, which is what guessing gives 2.30; the"
        " accuracy was 0.10, at best 0.10, at the end 0.10."
    ) in sentence(summary)


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
    summary = summary_of(both, [2.3] * 131)
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
