"""Signals with known closed forms, the verdict's truth table, and the words for them."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vgexp.diagnosis import diagnose, learned, sentence, signal_of, summarise, underflow, verdict_of
from vgexp.errors import QuestionError
from vgexp.quantities import TABLES

FLOAT32_TINY = float(np.finfo(np.float32).tiny)
GUESSING = math.log(10)


def layers_of(deltas: Any, step: int = 0, **columns: Any) -> pd.DataFrame:
    """Hidden layers 1..L with these deltas, and a read-out."""
    num = len(deltas)
    frame = pd.DataFrame({column.name: np.nan for column in TABLES["layers"]}, range(num + 1))
    frame["step"], frame["layer"] = step, range(1, num + 2)
    frame["name"] = [f"layers.{i}" for i in range(num)] + ["readout"]
    frame["kind"] = ["linear"] * num + ["readout"]
    frame["delta_rms"] = [*deltas, 0.3]
    frame["weight_norm"], frame["dead_fraction"] = 8.0, 0.0
    return frame.assign(**columns)


def steps_of(losses: Any, **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"step": range(len(losses)), "loss": losses}, dtype="float64")
    return frame.assign(**{"accuracy": 0.1, "clipped": 0} | columns)


NO_EVALS = pd.DataFrame({column.name: [] for column in TABLES["evals"]})


def summary_of(
    layers: pd.DataFrame, losses: Any, evals: pd.DataFrame = NO_EVALS, **changes: Any
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "constant_loss": GUESSING,
        "num_examples": 64,
        "dtype": "float32",
        "status": "completed",
        "divergence": None,
    }
    return summarise(layers, steps_of(losses), evals, **(arguments | changes))


# ---------------------------------------------------------------- signal


@pytest.mark.parametrize("depth", [2, 3, 20, 1000])
@pytest.mark.parametrize("ratio", [0.9, 1.0, 1.07])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_geometric_chain_has_its_ratio_as_factor(depth: int, ratio: float, scale: float) -> None:
    deltas = scale * ratio ** np.arange(depth, 0.0, -1)
    signal = signal_of(layers_of(deltas))
    assert signal.backward_factor_per_layer == pytest.approx(ratio, rel=1e-12)
    assert signal.attenuation == pytest.approx(ratio ** (depth - 1), rel=1e-10)
    assert (signal.num_layers, signal.num_layers_used, signal.num_left_out) == (depth, depth, 0)


def test_the_factor_is_what_polyfit_finds_on_ragged_deltas_with_gaps() -> None:
    rng = np.random.default_rng(1)
    deltas = np.exp(rng.normal(0, 2, 30) + 0.7 * np.arange(30))
    deltas[[4, 11, 12, 20]] = [0.0, np.nan, np.inf, 0.0]
    signal = signal_of(layers_of(deltas))
    usable = np.isfinite(deltas) & (deltas > 0)
    slope = np.polyfit(np.arange(1, 31)[usable], np.log(deltas[usable]), 1)[0]
    assert signal.backward_factor_per_layer == pytest.approx(math.exp(-slope), rel=1e-10)
    assert (signal.num_layers_used, signal.num_left_out) == (26, 4)


@pytest.mark.parametrize(
    ("first", "last", "attenuation", "kind"),
    [
        (0.99e-3, 1.0, 0.99e-3, "vanishing"),
        (1e-3, 1.0, 1e-3, "steady"),
        (1e3, 1.0, 1e3, "steady"),
        (1.01e3, 1.0, 1.01e3, "exploding"),
        (1e-300, 1e-310, 1e10, "exploding"),
        (0.0, 1.0, 0.0, "vanishing"),
        (0.0, 0.0, 0.0, "vanishing"),
        (1.0, 0.0, math.nan, "steady"),
        (math.inf, 1.0, math.inf, "exploding"),
        (math.inf, math.inf, math.nan, "steady"),
        (1.0, math.inf, math.nan, "steady"),
        (math.nan, 1.0, math.nan, "steady"),
        (1.0, math.nan, math.nan, "steady"),
        (0.0, math.nan, math.nan, "steady"),
    ],
)
def test_attenuation_and_signal_at_the_thresholds_and_beyond(
    first: float, last: float, attenuation: float, kind: str
) -> None:
    signal = signal_of(layers_of([first, 1.0, last]))
    assert signal.attenuation == pytest.approx(attenuation, rel=1e-6, nan_ok=True)
    assert signal.signal == kind


def test_one_layer_loses_nothing_and_has_no_factor() -> None:
    signal = signal_of(layers_of([1e-9]))
    assert (signal.attenuation, signal.signal) == (1.0, "steady")
    assert math.isnan(signal.backward_factor_per_layer)
    assert (signal.num_layers, signal.num_layers_used, signal.num_left_out) == (1, 1, 0)


def test_the_readout_and_what_stands_beside_the_path_take_no_part() -> None:
    path = layers_of([0.25, 0.5, 1.0])
    gates = path.iloc[:3].assign(name="gate", delta_rms=1e9)
    mixed = pd.concat([path, gates], ignore_index=True)
    assert repr(signal_of(mixed)) == repr(signal_of(path))
    assert signal_of(mixed).backward_factor_per_layer == pytest.approx(0.5)


def test_where_a_block_has_a_stream_that_is_the_path() -> None:
    path = layers_of([0.25, 0.5, 1.0])
    weights = path.iloc[:3].assign(delta_rms=1e9)
    path.loc[path.index[:3], "kind"] = "stream"
    mixed = pd.concat([path, weights], ignore_index=True)
    assert repr(signal_of(mixed)) == repr(signal_of(path))
    assert signal_of(mixed).backward_factor_per_layer == pytest.approx(0.5)


def test_the_order_of_rows_of_different_layers_does_not_matter() -> None:
    path = layers_of([0.25, 0.5, 1.0])
    # As text, in which nan is nan: dataclasses compare it as a number from Python 3.13 on.
    assert repr(signal_of(path.iloc[::-1])) == repr(signal_of(path))


@pytest.mark.parametrize("missing", [0, 2])
def test_an_end_that_was_not_probed_leaves_the_attenuation_undefined(missing: int) -> None:
    signal = signal_of(layers_of([0.25, 0.5, 1.0]).drop(missing))
    assert math.isnan(signal.attenuation)
    assert signal.backward_factor_per_layer == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("kept", "ends"),
    [([0, 1, 2], (4,)), ([1, 2, 3], (1,)), ([1, 2], (1, 4)), ([1, 3, 4], (1,)), ([4], (1, 4))],
)
def test_an_end_without_rows_is_told_where_the_number_of_layers_is_known(
    kept: list[int], ends: tuple[int, ...]
) -> None:
    frame = layers_of([1e-9, 1e-3, 0.5, 1.0]).iloc[kept]
    signal = signal_of(frame, 4)
    assert math.isnan(signal.attenuation)
    assert signal.signal == "steady"
    assert (signal.num_layers, signal.unmeasured_ends) == (4, ends)
    assert signal.num_left_out == 4 - sum(index < 4 for index in kept)


def test_both_ends_are_enough_for_the_attenuation() -> None:
    signal = signal_of(layers_of([0.25, 0.5, 1.0]).iloc[[0, 2]], 3)
    assert (signal.attenuation, signal.unmeasured_ends, signal.num_left_out) == (0.25, (), 1)


def test_no_rows_and_no_values_and_only_zeros_are_answered() -> None:
    for frame, num_layers, left_out in (
        (layers_of([]).head(0), 0, 0),
        (layers_of([]), 0, 0),
        (layers_of([np.nan] * 3), 3, 3),
    ):
        signal = signal_of(frame)
        assert math.isnan(signal.attenuation)
        assert math.isnan(signal.backward_factor_per_layer)
        assert (signal.num_layers, signal.num_left_out) == (num_layers, left_out)
    zeros = signal_of(layers_of([0.0] * 3))
    assert (zeros.attenuation, zeros.signal, zeros.num_left_out) == (0.0, "vanishing", 3)


def test_a_slope_beyond_the_range_of_floats_is_infinite_not_an_error() -> None:
    assert signal_of(layers_of([1e300, 1e-300])).backward_factor_per_layer == math.inf
    assert signal_of(layers_of([1e-300, 1e300])).backward_factor_per_layer == pytest.approx(0)


# ---------------------------------------------------------------- underflow


def test_layers_are_counted_from_where_the_signal_per_example_leaves_the_normal_numbers() -> None:
    num_examples = 64
    exponents = np.array([-12.0, -6.0, -3.0, -0.01, 0.01, 3.0, 6.0])
    deltas = num_examples * FLOAT32_TINY * 10**exponents
    assert underflow(layers_of(deltas), num_examples, "float32") == 4
    assert underflow(layers_of(deltas), 1, "float32") == 3
    assert underflow(layers_of(deltas), num_examples, "float64") == 0


def test_a_layer_that_fell_below_at_any_step_counts_once() -> None:
    later = layers_of([0.0, 1e-40, 1.0], step=20)
    both = pd.concat([layers_of([1e-40, 1.0, 1.0]), later, later.assign(step=40)])
    assert underflow(both, 1, "float32") == 2
    assert underflow(layers_of([]), 1, "float32") == 0
    assert underflow(layers_of([np.nan, np.inf]), 1, "float32") == 0


def test_exact_zeros_below_a_dead_layer_are_no_underflow() -> None:
    deltas = [0.0, 0.0, 0.0, 1e-33, 1e-30]
    dead_at_three = layers_of(deltas, dead_fraction=[0.1, 0.5, 1.0, 0.2, 0.0, np.nan])
    assert underflow(dead_at_three, 64, "float32") == 0
    dead_above = layers_of(deltas, dead_fraction=[0.1, 0.5, 0.9, 1.0, 0.0, np.nan])
    assert underflow(dead_above, 64, "float32") == 0
    dead_below = layers_of(deltas, dead_fraction=[1.0, 1.0, 0.9, 0.2, 0.0, np.nan])
    assert underflow(dead_below, 64, "float32") == 3


def test_zeros_right_below_a_signal_that_is_far_from_the_smallest_number_are_no_underflow() -> None:
    """A saturated tanh's slope is exactly 0 in single examples, without any dead unit."""
    assert underflow(layers_of([0.0, 0.0, 1e-5, 0.3]), 64, "float32") == 0
    assert underflow(layers_of([0.0, 0.0, 1e-30, 0.3]), 64, "float32") == 2
    assert underflow(layers_of([0.0, 1e-200, 0.3]), 64, "float64") == 0


def test_exact_zeros_below_weights_of_zero_are_no_underflow() -> None:
    cut = layers_of([0.0, 0.0], weight_norm=[1.0, 1.0, 0.0])
    assert underflow(cut, 64, "float32") == 0
    not_measured_again = cut.assign(step=10, weight_norm=np.nan)
    assert underflow(pd.concat([cut, not_measured_again]), 64, "float32") == 0
    assert underflow(cut.assign(weight_norm=[0.0, 1.0, 1.0]), 64, "float32") == 2


def test_a_number_that_is_small_but_not_zero_is_underflow_whatever_is_dead() -> None:
    assert underflow(layers_of([1e-40, 1.0], dead_fraction=1.0), 1, "float32") == 1


def test_an_unknown_dtype_is_a_question_gone_wrong() -> None:
    with pytest.raises(QuestionError, match="nearest: float32"):
        underflow(layers_of([1.0]), 1, "float31")


# ---------------------------------------------------------------- verdict


@pytest.mark.parametrize("num_steps", [1, 5, 19, 20, 21, 200])
def test_learning_is_the_best_mean_over_twenty_steps_below_nine_tenths(num_steps: int) -> None:
    low, high = 0.89, 0.91
    assert learned(steps_of([low] * num_steps), 1.0)
    assert not learned(steps_of([high] * num_steps), 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_learning_is_what_plain_python_over_windows_says(seed: int) -> None:
    losses = np.random.default_rng(seed).uniform(0.5, 1.5, 60).tolist()
    means = [math.fsum(losses[i : i + 20]) / 20 for i in range(41)]
    for constant in (min(means) / 0.9 * 0.999, min(means) / 0.9 * 1.001):
        assert learned(steps_of(losses), constant) == (min(means) < 0.9 * constant)


def test_a_short_dip_is_not_learning_and_a_huge_loss_before_does_not_hide_it() -> None:
    assert not learned(steps_of([1.0] * 30 + [0.5] * 3 + [1.0] * 30), 1.0)
    assert learned(steps_of([1e30] * 3 + [math.inf, math.nan] + [0.5] * 20), 1.0)
    assert not learned(steps_of([]), 1.0)
    assert not learned(steps_of([math.nan] * 30), 1.0)


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


VANISHING = layers_of(0.1 ** np.arange(9, -1.0, -1))
STEADY = layers_of(np.full(10, 0.5))
EXPLODING = layers_of(10.0 ** np.arange(9, -1.0, -1))


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


# ---------------------------------------------------------------- words


def test_a_vanishing_run_is_told_with_its_numbers_and_the_hint_at_float64() -> None:
    layers = layers_of(1e-3 * 0.01 ** np.arange(19, -1.0, -1))
    text = sentence(summary_of(layers, [2.31, *[2.302] * 30]))
    assert "vanishes" in text
    assert "layer 1 gets 1e-38 of what layer 20 gets, a fitted factor of 0.01 a layer" in text
    assert "was 2.30 over the last 20 steps, which is what guessing gives (2.30)" in text
    assert "In 3 of 20 layers" in text
    assert "dtype=float64 shows the true value" in text


def test_a_run_that_learned_despite_its_signal_is_told_so() -> None:
    text = sentence(summary_of(VANISHING, [2.3] + [0.5] * 30))
    assert "vanishes" in text
    assert "Even so it learned: the training loss went from 2.30 to 0.500" in text


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (
            [1, 2, 3],
            "layer 1 was not measured and cannot be compared with layer 4; the fitted factor",
        ),
        (
            [0, 1, 4],
            "layer 4 was not measured and cannot be compared with layer 1; the fitted factor",
        ),
        (
            [1, 2],
            "layer 1 and layer 4 were not measured; the fitted factor of those measured is 0.5 a"
            " layer",
        ),
        ([1, 4], "layer 1 and layer 4 were not measured."),
    ],
)
def test_an_end_without_rows_is_told_with_what_the_measured_layers_show(
    kept: list[int], words: str
) -> None:
    layers = layers_of([0.125, 0.25, 0.5, 1.0]).iloc[kept]
    summary = summary_of(layers, [2.3] * 30, num_layers=4)
    assert f"The gradient at step 0: {words}" in sentence(summary)
    assert words.rstrip(".") in summary["cause"]
    assert summary["attenuation"] is None


def test_the_only_hidden_layer_without_rows_is_told() -> None:
    summary = summary_of(layers_of([1.0]).iloc[[1]], [2.3] * 30, num_layers=1)
    assert "step 0: layer 1 was not measured." in sentence(summary)


def test_a_run_that_was_cut_short_says_so() -> None:
    assert "interrupted" in sentence(summary_of(STEADY, [2.3], status="interrupted"))


def test_a_frame_alone_is_diagnosed_at_its_first_and_last_measured_step() -> None:
    weights_only = STEADY.assign(step=30, delta_rms=np.nan)
    diagnosis = diagnose(pd.concat([VANISHING, STEADY.assign(step=20), weights_only]))
    assert (diagnosis.first_step, diagnosis.last_step) == (0, 20)
    assert (diagnosis.first.signal, diagnosis.last.signal) == ("vanishing", "steady")
    assert str(diagnosis) == diagnosis.sentence
    assert "vanishes at step 0" in str(diagnosis)
    assert "is steady at step 20" in str(diagnosis)


def test_a_frame_with_nothing_to_diagnose_is_a_question_gone_wrong() -> None:
    with pytest.raises(QuestionError, match="lacks the columns delta_rms"):
        diagnose(STEADY.drop(columns="delta_rms"))
    with pytest.raises(QuestionError, match="no row of the table has a backward signal"):
        diagnose(STEADY.assign(delta_rms=np.nan))
    with pytest.raises(QuestionError, match="lacks the column step"):
        diagnose(STEADY.drop(columns="step"))


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([2.0, 1.0, 4.0], "grad_norm of layer 1 is 0.5 of layer 3's"),
        ([12.0, 1.0, 4.0], "grad_norm of layer 1 is 3 times layer 3's"),
        # It falls by more than the root of what dL/dz falls by.
        ([1e-3, 1.0, 4.0], None),
        ([0.0, 1.0, 4.0], None),
        ([math.nan, 1.0, 4.0], None),
    ],
)
def test_it_is_said_where_gradients_of_weights_hide_a_lost_signal(
    norms: list[float], words: str | None
) -> None:
    rows = layers_of([1e-5, 1e-3, 1.0]).assign(grad_norm=[*norms, 1.0])
    said = sentence(summary_of(rows, [2.3] * 30))
    assert ("hide it" in said) == (words is not None)
    assert words is None or words in said
    ratio = norms[0] / norms[-1]
    assert signal_of(rows).weight_gradient_ratio == pytest.approx(ratio, nan_ok=True)
    assert math.isnan(signal_of(rows[rows["layer"] != 1], 3).weight_gradient_ratio)
    steady = layers_of([0.5, 0.7, 1.0]).assign(grad_norm=[*norms, 1.0])
    assert "hide it" not in sentence(summary_of(steady, [2.3] * 30))
