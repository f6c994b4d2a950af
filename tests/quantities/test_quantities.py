"""Quantities: each says how it spreads and is shown, and what theory predicts is like what it
predicts.

Holds: quantities/networks.py, quantities/quantity.py, quantities/tables.py, quantities/training.py,
report/selection.py
"""

from __future__ import annotations

import math

import pytest

from vgexp.quantities import LAYERS, PREDICTION, SUMMARY, TABLES, Quantity
from vgexp.report import selection

DECLARED = [
    pytest.param(quantity, id=f"{table}.{quantity.name}")
    for table, quantities in {**TABLES, "summary": tuple(SUMMARY.values())}.items()
    for quantity in quantities
]
GEOMETRIC_METRICS = {
    "attenuation",
    "attenuation_last",
    "predicted_attenuation",
    "critical_attenuation",
    "backward_factor_per_layer",
    "backward_factor_per_layer_last",
    "predicted_backward_factor_per_layer",
    "backward_factor_per_time_step",
    "backward_factor_per_time_step_last",
    "predicted_backward_factor_per_time_step",
    "time_attenuation",
    "time_attenuation_last",
    "weight_gradient_ratio",
    "branch_factor",
    "middle_factor",
    "chi",
}
"""Products of random factors, and the factors themselves: logarithms of these average."""
GEOMETRIC_COLUMNS = {
    "grad_norm",
    "grad_max",
    "grad_norm_clipped",
    "update_ratio",
    "delta_rms",
    "backward_gain",
    "predicted_delta_rms",
    "predicted_backward_gain",
}
FACTORS = {
    "backward_factor_per_layer",
    "backward_factor_per_layer_last",
    "predicted_backward_factor_per_layer",
    "backward_factor_per_time_step",
    "backward_factor_per_time_step_last",
    "predicted_backward_factor_per_time_step",
    "middle_factor",
    "chi",
}
"""Of one layer, or of one step in time."""
PRODUCTS = {
    "attenuation",
    "attenuation_last",
    "predicted_attenuation",
    "critical_attenuation",
    "time_attenuation",
    "time_attenuation_last",
}
"""Of all layers, or of all steps in time."""


@pytest.mark.parametrize("quantity", DECLARED)
def test_every_number_declares_how_it_spreads_and_its_scale_and_no_word_does(
    quantity: Quantity,
) -> None:
    is_number = quantity.role == "value" and quantity.kind != "text"
    assert (quantity.spread is not None) == (quantity.scale is not None) == is_number
    assert quantity.definition
    assert quantity.definition in quantity.meaning


def test_a_number_that_does_not_say_how_it_spreads_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="new_number"):
        Quantity("new_number", "a number")
    with pytest.raises(AssertionError, match="word"):
        Quantity("word", "a word", "text", spread="geometric", scale="log")


def test_what_spreads_geometrically_are_factors_and_sizes_and_no_deviation_of_logarithms() -> None:
    assert {m.name for m in SUMMARY.values() if m.is_geometric} == GEOMETRIC_METRICS
    assert {c.name for c in TABLES["layers"] if c.is_geometric} == GEOMETRIC_COLUMNS
    for deviation in ("attenuation_log_std", "backward_factor_log_std"):
        assert SUMMARY[deviation].spread == "arithmetic"


@pytest.mark.parametrize("table", [*TABLES, "summary"])
def test_a_prediction_is_shown_and_averaged_as_what_it_predicts(table: str) -> None:
    own = SUMMARY.values() if table == "summary" else TABLES[table]
    measured = {quantity.name: quantity for quantity in own}
    shared = ("kind", "role", "unit", "spread", "scale", "axis")
    for prediction in own:
        twin = measured.get(prediction.name.removeprefix(PREDICTION))
        if prediction.is_predicted and twin is not None:
            assert [getattr(prediction, name) for name in shared] == [
                getattr(twin, name) for name in shared
            ]


def test_the_last_value_of_a_metric_is_shown_and_averaged_as_the_first() -> None:
    for name, metric in SUMMARY.items():
        last = SUMMARY.get(f"{name}_last")
        if last is not None and metric.kind != "text":
            assert (last.spread, last.scale) == (metric.spread, metric.scale)


@pytest.mark.parametrize("shown", ["COMPARED", "SHOWN", "ON_CARD"])
def test_what_is_shown_by_default_are_summary_metrics_each_once(shown: str) -> None:
    names = getattr(selection, shown)
    assert set(names) <= set(SUMMARY)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "lowest", "highest", "is_logarithmic"),
    [
        ("loss_last", 1.0, 99.0, False),
        ("loss_last", 1.0, 101.0, True),
        ("loss_last", 0.0, 101.0, False),
        ("loss_last", math.inf, -math.inf, False),  # no value
        ("weight_gradient_ratio", 1.0, 1.5, True),
        ("attenuation", 1.0, 1.5, True),
        ("backward_factor_per_layer", 1.0, 1.5, True),
        ("clip_fraction", 0.001, 1.0, False),
        ("lyapunov_largest", 0.001, 1.0, False),
    ],
)
def test_a_scale_is_logarithmic_as_declared_or_where_values_above_zero_span_much(
    name: str, lowest: float, highest: float, is_logarithmic: bool
) -> None:
    assert SUMMARY[name].is_logarithmic(lowest, highest) == is_logarithmic


def test_every_column_of_a_layer_says_what_asks_for_it_and_what_it_scales_with() -> None:
    for column in LAYERS:
        if column.role == "value":
            assert column.asked_by in ("probe.every", "probe.activations_every")
            assert column.scales_with is not None


def test_a_factor_of_one_layer_and_a_product_of_many_each_have_a_scale_of_their_own() -> None:
    assert {m.name for m in SUMMARY.values() if m.scale == "factor"} == FACTORS
    assert {m.name for m in SUMMARY.values() if m.scale == "product"} == PRODUCTS


def test_the_probe_divides_scales_out_of_gradients_and_of_the_backward_signal_alone() -> None:
    of_gradient = {c.name for c in LAYERS if c.scales_with == "gradient"}
    assert of_gradient == {"grad_norm", "grad_max", "grad_norm_clipped"}
    assert {c.name for c in LAYERS if c.scales_with == "delta"} == {"delta_rms"}


def test_a_block_has_the_norm_over_all_of_its_weights_of_each_norm_and_of_nothing_else() -> None:
    norms = {c.name for c in LAYERS if c.of_block == "norm"}
    assert norms == {"weight_norm", "grad_norm", "grad_norm_clipped"}
