"""Rules that read small signs: gradients of exactly 0, weights that shrank, first losses, shapes.

Holds: diagnosis/rules/depth.py, diagnosis/rules/inputs.py, diagnosis/rules/epsilons.py,
diagnosis/rules/flat_losses.py, diagnosis/rules/losses.py, diagnosis/rules/updates.py,
diagnosis/outcome.py
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import steps_of
from test_cause_rules import NAN, layers, loss, of, said

from vgexp.diagnosis import CAUSE_RULES, conclude
from vgexp.diagnosis.depths import Factors
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.rules.multiplied import kind_of_vanishing
from vgexp.diagnosis.rules.updates import left_by_decay, rate_remedy


def found(cause: str, evidence: Evidence) -> bool:
    return CAUSE_RULES[cause](evidence) is not None


# ---------------------------------------------------------------- outputs and targets


@pytest.mark.parametrize(
    ("output", "made_by", "most", "is_found"),
    [
        ("64x1", "MkldnnRnnLayerBackward0", 0.9, True),
        ("64x1", "StackBackward0", 0.99, True),
        # Of what a cell by hand gives, that it is below 1 says nothing by itself.
        ("64x1", "StackBackward0", 0.7, False),
        ("64x1", "AddmmBackward0", 0.99, False),
        ("64x2", "MkldnnRnnLayerBackward0", 0.9, False),
    ],
)
def test_states_of_a_recurrent_net_have_the_range_of_tanh(
    output: str, made_by: str, most: float, is_found: bool
) -> None:
    table = loss(output, "64", "float32", "mine", min=-most, max=most, made_by=made_by)
    table.loc[1, ["min", "max", "mean", "std"]] = -12.0, 12.0, 0.0, 6.0
    assert found("output_range", of(loss=table)) == is_found


@pytest.mark.parametrize(("parts", "is_found"), [(1, True), (2, True), (1.5, False)])
def test_an_output_that_is_broadcast_may_have_several_parts(parts: float, is_found: bool) -> None:
    table = said("broadcast_to", "64x64", f"{int(64 * parts)}x1", "64", "float32")
    assert found("target_shape", of(loss=table)) == is_found


@pytest.mark.parametrize(("spread", "is_found"), [(1.0, True), (1e4, False)])
def test_outputs_that_dwarf_their_targets_do_not_show_pairs(spread: float, is_found: bool) -> None:
    table = loss("64x1", "64", "float32", "mine")
    table["mean"], table["std"] = [0.0, 0.0, spread**2 + 1.0], [spread, 1.0, 0.0]
    assert found("target_shape", of(loss=table)) == is_found


# ---------------------------------------------------------------- gradients of exactly 0


def capped(
    *, steep: float = 0, first: float = 1.0, dtype: str = "float32", **more: Any
) -> Evidence:
    """A loss of 1 at each of 120 steps, whose gradient is 0."""
    silent = {"grad_norm": 0.0, "grad_max": 0.0, "update_ratio": 0.0, "delta_rms": 0.0, **more}
    table = loss("64x1", "64", dtype, "mine").assign(is_steep=[NAN, NAN, steep])
    return of(
        loss=table, layers=layers(**silent), steps=steps_of([first] + [1.0] * 119, grad_norm=0.0)
    )


@pytest.mark.parametrize(
    ("changes", "is_found"),
    [
        ({}, True),
        ({"steep": 1}, False),
        ({"steep": NAN}, False),
        ({"first": 2.0}, False),
        ({"dtype": "float16"}, False),
        ({"dead_fraction": [0.0, 1.0, 0.0, NAN]}, False),
    ],
)
def test_a_loss_that_sends_exactly_nothing_back_is_flat(
    changes: dict[str, Any], is_found: bool
) -> None:
    assert found("saturated_loss", capped(**changes)) == is_found


def test_a_cut_is_no_flat_loss() -> None:
    evidence = capped()
    cut = evidence.tables["loss"].assign(cut_by=[None, None, "RoundBackward0"])
    evidence.tables["loss"] = cut
    assert not found("saturated_loss", evidence)


@pytest.mark.parametrize(
    ("weight", "bias", "is_found"),
    [((0.0, 0.0), (0.1, 0.0), True), ((0.0, 0.1), (0.1, 0.1), False), ((0, 0), (0, 0), False)],
)
def test_inputs_of_0_give_their_weight_no_gradient_and_its_bias_one(
    weight: tuple[float, ...], bias: tuple[float, ...], is_found: bool
) -> None:
    rows = layers()
    first = rows["name"] == "layers.0"
    rows.loc[first, "grad_norm"] = weight
    parameters = pd.DataFrame(
        {"step": [0, 20], "name": "layers.0.bias", "kind": "bias", "grad_norm": bias}
    )
    answer = CAUSE_RULES["inputs_unscaled"](of(layers=rows, parameters=parameters))
    assert (answer is not None and "is 0 for every example" in answer.sentence) == is_found


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("saturated", "cause"),
    [
        ([0.1, 0.95, 0.2, NAN], "weights_large"),
        # Inputs may be as large as they like, and a rectifier's outputs too.
        ([0.95, 0.1, 0.2, NAN], None),
        ([NAN, 0.95, 0.2, NAN], None),
        ([0.1, 0.85, 0.2, NAN], None),
    ],
)
def test_a_layer_at_the_flat_ends_by_bounded_inputs_has_large_weights(
    saturated: list[float], cause: str | None
) -> None:
    rows = layers(saturated_fraction=saturated, dead_fraction=[0, 1, 0, NAN])
    assert found("weights_large", of(layers=rows)) == (cause is not None)
    assert found("dead_at_start", of(layers=rows)) == (saturated[1] < 0.9)


@pytest.mark.parametrize(
    ("std", "value", "num_layers", "is_found"),
    [(7.0, 12.0, 0, True), (7.0, 5.0, 0, False), (1.0, 12.0, 0, False), (7.0, 12.0, 3, False)],
)
def test_a_first_loss_far_above_guessing_shows_large_weights_where_no_factor_is_known(
    std: float, value: float, num_layers: int, is_found: bool
) -> None:
    table = loss(std=std).assign(mean=[0.0, 4.5, value])
    evidence = of(loss=table, layers=layers(preact_std=NAN, preact_mean=NAN, act_std=NAN))
    evidence = replace(evidence, metrics={**evidence.metrics, "num_layers": num_layers})
    assert found("weights_large", evidence) == is_found


@pytest.mark.parametrize(("decay", "is_told"), [(1.0, True), (0.0, False)])
def test_weights_that_decay_took_are_told_and_no_step_is_too_long(
    decay: float, is_told: bool
) -> None:
    rows = layers(
        (0, 20, 40),
        weight_norm=lambda step: 8.0 * 1e-3 ** (step / 40),
        update_ratio=lambda step: 2.0 if step == 40 else 1e-2,
    )
    answer = conclude(of(layers=rows, settings={"optimizer.weight_decay": decay}, loss=loss()))
    assert answer.cause == ("unknown" if is_told else "labels_unlearnable")
    assert ("weight_decay = 1 takes more" in answer.sentence) == is_told
    assert (left_by_decay(of(layers=rows, settings={"optimizer.weight_decay": decay})) or 0) == (
        pytest.approx(1e-3) if is_told else 0
    )


@pytest.mark.parametrize(
    ("last", "eps", "health"),
    [(1.6, 1.0, "sick"), (0.5, 1.0, "healthy"), (1.6, 1e-8, "healthy"), (1.6, 5e-3, "healthy")],
)
def test_an_epsilon_above_all_gradients_counts_where_little_was_learned(
    last: float, eps: float, health: str
) -> None:
    settings = {"optimizer.eps": eps, "optimizer.betas": [0.9, 0.999]}
    losses = np.r_[[2.3] * 20, [last] * 280]
    rows = layers(tuple(range(0, 300, 20)), update_ratio=0.05)
    evidence = of(
        layers=rows, loss=loss(), steps=steps_of(losses, grad_norm=1.0), settings=settings
    )
    answer = conclude(evidence)
    assert answer.health == health
    assert answer.cause == ("optimizer_epsilon" if health == "sick" else None)


@pytest.mark.parametrize(("eps", "is_found"), [(1e-8, True), (1e-4, False)])
def test_an_epsilon_that_float16_lacks_is_seen_of_parameters_of_no_layer(
    eps: float, is_found: bool
) -> None:
    prompt = {"step": [0, 20], "name": "prompt", "kind": "other"}
    rows = pd.DataFrame({**prompt, "grad_norm": [1e-3, NAN], "update_ratio": NAN})
    evidence = of(
        dtype="float16",
        layers=None,
        parameters=rows,
        settings={"optimizer.eps": eps},
        steps=steps_of([0.1] + [NAN] * 39, grad_norm=NAN),
    )
    assert found("optimizer_epsilon", evidence) == is_found


@pytest.mark.parametrize(
    ("ratio", "growth", "dies", "is_found"),
    [
        (0.18, 2.3, True, True),
        (0.05, 2.3, True, False),
        (0.18, 1.1, True, False),
        (0.18, 2.3, False, False),
    ],
)
def test_updates_that_outgrow_the_weights_before_units_die_are_too_long(
    ratio: float, growth: float, dies: bool, is_found: bool
) -> None:
    rows = layers(
        (0, 20, 40),
        update_ratio=ratio,
        weight_norm=lambda step: 4.0 * (growth if step else 1.0),
        dead_fraction=lambda step: [1.0 if dies and step == 40 else 0.2] * 3 + [NAN],
    )
    assert found("rate_too_large", of(layers=rows)) == is_found


@pytest.mark.parametrize(
    ("weights", "cause"), [(0.12, "weights_small"), (0.6, "saturating_activation")]
)
def test_what_shrinks_a_signal_more_is_the_cause(weights: float, cause: str) -> None:
    """Of slopes of 0.4: a small z makes ReLU's look smaller than 0.71."""
    factors = Factors(0.4 * weights, weights, 0.4)
    assert kind_of_vanishing(of(), factors) == cause


# ---------------------------------------------------------------- losses below 0


def of_labels(first: float, last: float, cost: float = NAN) -> Evidence:
    """A loop whose loss of labels goes so, and where the probe found this cost of a guess."""
    table = loss(name="mine").assign(constant_loss=[NAN, NAN, cost])
    table.loc[2, "mean"] = first
    return of(loss=table, steps=steps_of([first] * 30 + [last] * 90, grad_norm=1.0))


@pytest.mark.parametrize(
    ("first", "last", "cost", "health"),
    [
        (2.3, 0.1, 2.3, "healthy"),
        (0.1, -18.0, 2.3, "undecided"),  # F.nll_loss of raw scores
        (-0.1, -3.0, NAN, "undecided"),  # as of a policy: nobody knows
        (-2.3, -16.0, -2.3, "sick"),
    ],
)
def test_a_loss_of_labels_below_0_tells_of_nothing_learned(
    first: float, last: float, cost: float, health: str
) -> None:
    diagnosis = conclude(of_labels(first, last, cost))
    assert diagnosis.health == health
    assert ("It learned" in diagnosis.sentence) == (health == "healthy")
    assert ("its sign is turned" in diagnosis.sentence) == (health == "sick")
    assert ("no rule says why" in str(diagnosis)) is False


def test_networks_that_train_against_each_other_may_turn_a_sign() -> None:
    evidence = of_labels(-2.3, -16.0, -2.3)
    evidence = replace(evidence, metrics={**evidence.metrics, "takes_turns": True})
    assert "sign is turned" not in conclude(evidence).sentence


# ---------------------------------------------------------------- losses that became nan


def test_a_loss_that_became_nan_is_said_to_be_so_and_is_not_unknown() -> None:
    diagnosis = conclude(of(steps=steps_of([2.3, 2.2] + [NAN] * 118, grad_norm=1.0)))
    assert diagnosis.unchecked["relapsed"] == "the loss is nan since step 2"
    assert "The loss is nan since step 2; at the first step it was 2.30." in diagnosis.sentence
    unwatched = conclude(of(steps=steps_of([NAN] * 120, grad_norm=1.0)))
    assert unwatched.unchecked["relapsed"] == "the losses are not known"
    assert "The loss is" not in unwatched.sentence


@pytest.mark.parametrize(("rate", "words"), [(0.0, "that of the first is 0"), (0.1, "from 0.1 to")])
def test_no_remedy_multiplies_a_rate_of_0(rate: float, words: str) -> None:
    assert words in rate_remedy(of(settings={"optimizer.lr": rate}), 10.0, "so").words
