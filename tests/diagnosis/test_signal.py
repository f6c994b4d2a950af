"""The backward signal of tables with known closed forms, and the numbers that a dtype lost.

Holds: diagnosis/signal.py
"""

import math

import numpy as np
import pandas as pd
import pytest
from layer_tables import layers_of

from vgexp.diagnosis import signal_of, underflow
from vgexp.errors import QuestionError

FLOAT32_TINY = float(np.finfo(np.float32).tiny)


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
    tiny = cut.assign(delta_rms=[0.0, 0.0, 1e-35])
    assert underflow(tiny, 64, "float32") == 0
    assert underflow(tiny.assign(weight_norm=[0.0, 1.0, 1.0]), 64, "float32") == 2


def test_zeros_below_the_read_out_are_told_apart_by_its_signal() -> None:
    """The last hidden layer has no hidden one above it."""
    nothing = layers_of([0.0, 0.0], dead_fraction=np.nan)
    assert underflow(nothing, 64, "float32") == 0
    assert underflow(nothing.assign(delta_rms=[0.0, 0.0, 1e-35]), 64, "float32") == 2
    assert underflow(nothing.assign(delta_rms=[0.0, 0.0, 1e-25]), 64, "float32") == 0


def test_where_nothing_tiny_was_measured_zeros_are_no_underflow() -> None:
    assert underflow(layers_of([0.0, 0.0]).assign(delta_rms=0.0), 64, "float32") == 0
    assert underflow(layers_of([0.0, 0.0]).iloc[:1], 64, "float32") == 0


def test_between_layers_that_were_not_measured_the_signal_may_have_been_lost() -> None:
    ends = layers_of([0.0, 1e-6, 1e-6, 1e-6, 1e-6, 1e-4]).iloc[[0, 5, 6]]
    assert underflow(ends, 64, "float32") == 1
    assert underflow(ends.iloc[[0, 1]].assign(layer=[5, 6]), 64, "float32") == 0


def test_a_dead_layer_in_half_precision_is_no_underflow_either() -> None:
    """With a scale of 65536 and 64 examples the smallest that is held is 6e-8."""
    scale = pd.Series([65536.0], index=[0])
    unknown = {"dead_fraction": np.nan}
    cut = layers_of([0.0, 0.0, 0.05, 0.1], **unknown)
    assert underflow(cut, 64, "float16", scale) == 0
    lost = layers_of([0.0, 1e-8, 1e-6, 1e-3], **unknown)
    assert underflow(lost, 64, "float16", scale) == 2
    sudden = layers_of([0.0, 1e-6, 1e-4, 1e-2], **unknown)
    assert underflow(sudden, 64, "float16", scale) == 1


def test_a_number_that_is_small_but_not_zero_is_underflow_whatever_is_dead() -> None:
    assert underflow(layers_of([1e-40, 1.0], dead_fraction=1.0), 1, "float32") == 1


def test_an_unknown_dtype_is_a_question_gone_wrong() -> None:
    with pytest.raises(QuestionError, match="nearest: float32"):
        underflow(layers_of([1.0]), 1, "float31")
