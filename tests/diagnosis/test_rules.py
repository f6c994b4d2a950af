"""Each rule on evidence that it finds something in, and on evidence that it is silent about.

Holds: diagnosis/findings.py, diagnosis/rules/__init__.py, diagnosis/rules/backward_signal.py,
diagnosis/rules/initialisation.py, diagnosis/rules/layers.py, diagnosis/rules/theory.py,
diagnosis/rules/through_time.py, diagnosis/rules/training.py
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import STEADY, VANISHING, layers_of, steps_of

from vgexp.diagnosis import RULES, Evidence
from vgexp.diagnosis.evidence import evidence_of_layers
from vgexp.diagnosis.findings import Finding, Rule
from vgexp.diagnosis.needs import say_lacking

SIGNAL = {
    "signal": "vanishing",
    "attenuation": 1e-6,
    "backward_factor_per_layer": 0.5,
    "num_layers": 21,
}
THEORY = {"predicted_backward_factor_per_layer": 0.5}
IN_TIME = {"predicted_backward_factor_per_time_step": 0.5}
PARTS = {"branch_factor": 0.25, "carried_factor": 0.0, "mean_slope": 0.25, "weight_gain": 1.0}
LOSS = {
    **SIGNAL,
    "verdict": "stalled",
    "loss_first": 2.5,
    "loss_last_mean_20": 2.0,
    "loss_best_mean_20": 1.9,
    "constant_loss": 2.0,
}
ACCURACY = {
    "accuracy_first": 0.125,
    "accuracy_best_mean_20": 0.625,
    "accuracy_last_mean_20": 0.5,
}
DIVERGED = {"verdict": "diverged", "cause": "z became inf", "nonfinite_step": 12}
CURVATURE = {
    "verdict": "stalled",
    "sharpness_last": 7.0,
    "sharpness_over_limit": 0.5,
    "curvature_over_limit_max": 0.5,
}
JACOBIAN = {"num_layers": 4, "jacobian_bound_log10": 2.0, "jacobian_largest_log10": 1.0}
PATHS = {"path_length": 4.25, "num_branches": 9.0}
SHATTERING = {"gradient_correlation": 0.1, "gradient_correlation_deepest": 0.6}


def of(*parts: dict[str, Any], is_untrained: bool = False, **changes: Any) -> Evidence:
    """Evidence of these metrics; later ones stand for earlier ones."""
    metrics: dict[str, Any] = {}
    for part in (*parts, changes):
        metrics |= part
    return Evidence(metrics, dtype=metrics.get("dtype"), is_untrained=is_untrained)


def hidden(signal: float, ratio: float) -> Evidence:
    kind = "vanishing" if signal < 1 else "exploding"
    return of(SIGNAL, signal=kind, attenuation=signal, weight_gradient_ratio=ratio)


def underflow(num_layers: int, dtype: str) -> Evidence:
    return of(underflow=num_layers, dtype=dtype, num_layers=20)


def two_steps(last: Any) -> Evidence:
    """A table in which the signal is steady at step 0, and these deltas are those of step 7."""
    return evidence_of_layers(pd.concat([STEADY, layers_of(last, step=7)]))


def over_time(column: str, *shares: list[float], first_step: int = 0, **metrics: Any) -> Evidence:
    """A table whose layers have these values in one column, the values of a step in each list."""
    frames = [
        layers_of([1.0] * (len(values) - 1), step=first_step + 20 * number, **{column: values})
        for number, values in enumerate(shares)
    ]
    return Evidence({**metrics}, {"layers": pd.concat(frames)})


TELLS: list[tuple[str, Evidence, str]] = [
    (
        "gradient",
        of(SIGNAL),
        "The gradient vanishes at step 0: layer 1 gets 1e-06 of what layer 21 gets, a fitted factor"
        " of 0.5 a layer.",
    ),
    ("gradient", evidence_of_layers(layers_of([0.99e-3, 1, 1])), "The gradient vanishes at step 0"),
    ("gradient", evidence_of_layers(layers_of([1e-3, 1, 1])), "The gradient is steady at step 0"),
    ("gradient", evidence_of_layers(layers_of([1e3, 1, 1])), "The gradient is steady at step 0"),
    ("gradient", evidence_of_layers(layers_of([1.01e3, 1, 1])), "The gradient explodes at step 0"),
    ("gradient", evidence_of_layers(VANISHING.assign(step=5)), "The gradient vanishes at step 5"),
    ("gradient", evidence_of_layers(layers_of([np.nan, 1, 1])), "The gradient at step 0: layer 1"),
    ("gradient", of(SIGNAL, is_untrained=True), "The gradient vanishes at initialisation: layer"),
    (
        "gradient",
        of(SIGNAL, num_seeds=3, is_untrained=True),
        "The gradient vanishes at initialisation (geometric means over 3 seeds): layer 1",
    ),
    # Half of the signal's logarithm, whichever way it goes.
    ("hidden_by_weights", hidden(1e-6, 1.01e-3), "grad_norm of layer 1 is 0.001 of layer 21's"),
    ("hidden_by_weights", hidden(1e-6, 0.99e3), "grad_norm of layer 1 is 9.9e+02 times layer"),
    ("hidden_by_weights", hidden(1e6, 0.99e3), "hide it"),
    ("hidden_by_weights", hidden(1e6, 1.01e-3), "hide it"),
    ("hidden_by_weights", hidden(1e-6, 1.0), "grad_norm of layer 1 is 1 of layer 21's"),
    ("gradient_last", two_steps([0.99e-3, 1, 1]), "The gradient vanishes at step 7: layer 1 gets"),
    ("gradient_last", two_steps([1e-3, 1, 1]), "The gradient is steady at step 7"),
    ("gradient_last", two_steps([1.0, 2.0]), "layer 1 gets 0.5 of what layer 2 gets"),
    ("no_prediction", of(theory="model.norm=batch"), "No prediction: model.norm=batch."),
    ("prediction", of(THEORY), "Theory says 0.5 a layer."),
    (
        "prediction",
        of(THEORY, theory="few units", predicted_attenuation=1e-3),
        "Theory says 0.001 in all, 0.5 a layer (few units).",
    ),
    (
        "predicted_parts",
        of(THEORY, PARTS),
        "At the middle layer phi'^2 is 0.25 on average, times sigma_w^2 = 1: the root of it, 0.5,"
        " is the factor of delta_rms.",
    ),
    ("predicted_parts", of(THEORY, PARTS, branch_factor=0.25 * 1.0009), "sigma_w^2 = 1: the root"),
    ("predicted_parts", of(THEORY, PARTS, branch_factor=0.25 * 1.0012), "= 1 and 1 of dropout"),
    (
        "predicted_parts",
        of(THEORY, PARTS, carried_factor=1.0),
        ": the branch passes back 0.25 of the mean square, the skip 1; the root of the sum, 1.1",
    ),
    ("predicted_parts", of(THEORY, PARTS, middle_factor=0.5 * 0.981), "0.5, is the factor of"),
    (
        "predicted_parts",
        of(THEORY, PARTS, middle_factor=0.5 * 0.979),
        "0.5, would be the factor of delta_rms; borders or few units make it 0.49.",
    ),
    (
        "predicted_parts",
        of(PARTS, predicted_backward_factor_per_layer=0.511),
        "is the factor of delta_rms there.",
    ),
    (
        "predicted_parts",
        of(PARTS, predicted_backward_factor_per_layer=0.509),
        "is the factor of delta_rms.",
    ),
    (
        "predicted_depth",
        of(predicted_backward_factor_per_layer=0.999, predicted_signal_depth=12.345),
        "1e-3 of the signal is left after 12.3 layers.",
    ),
    (
        "predicted_depth",
        of(predicted_backward_factor_per_layer=1.0, predicted_signal_depth=12.345),
        "After 12.3 layers it is 1e3 times as large.",
    ),
    ("phase", of(THEORY, chi=1.00099, depth_scale=9.0), "end at chi = 1, between vanishing and"),
    (
        "phase",
        of(THEORY, chi=1.0011, depth_scale=-909.6),
        "Deep layers end at chi = 1: the mean square grows by e in 910 layers.",
    ),
    (
        "phase",
        of(THEORY, chi=0.9989, depth_scale=908.6),
        "Deep layers end at chi = 0.999: the mean square falls by e in 909 layers.",
    ),
    ("phase", of(THEORY, chi=0.5), "Deep layers end at chi = 0.5."),
    (
        "through_time",
        of(backward_factor_per_time_step=0.9),
        "Back through time the fitted factor is 0.9 a step.",
    ),
    (
        "through_time",
        of(backward_factor_per_time_step=0.9, time_attenuation=0.01),
        "the first watched state gets 0.01 of what the last gets, a fitted factor of 0.9 a step.",
    ),
    (
        "predicted_through_time",
        of(IN_TIME, theory="few units", is_untrained=True),
        "Theory says 0.5 a step (few units).",
    ),
    (
        "predicted_through_time",
        of(IN_TIME, THEORY, PARTS, theory="few units", is_untrained=True),
        "Theory says 0.5 a step. At the middle layer phi'^2 is 0.25 on average, times sigma_w^2 ="
        " 1: the root of it, 0.5, is the factor of delta_rms a step.",
    ),
    (
        "fitted_variances",
        of(fitted_variance_min=0.9, fitted_variance_max=1.2),
        "On the batch that lsuv fitted, the outputs of all weights have variances of 0.9 to 1.2;",
    ),
    (
        "fitted_variances",
        of(fitted_variance_min=0.9, fitted_variance_max=1.2, num_seeds=2),
        "On the batch that lsuv fitted for the first seed, the outputs",
    ),
    ("jacobian", of(JACOBIAN), "singular value is 10 (the product of the layers' own: 1e+02)."),
    (
        "jacobian",
        of(JACOBIAN, jacobian_effective_rank=3.0),
        "1e+02), its smallest 0; its effective rank is 3.",
    ),
    (
        "jacobian",
        of(JACOBIAN, jacobian_largest_log10=-341.5),
        "singular value is 3.2e-342 (the product of the layers' own: 1e+02).",
    ),
    *(
        ("jacobian", of(JACOBIAN, jacobian_largest_log10=log10), f"singular value is {power} (")
        for log10, power in (
            *((99.9999, "1e+100"), (299.9999, "1e+300"), (300.9999, "1e+301")),
            *((-299.0001, "1e-299"), (-341.0001, "1e-341"), (400.97, "9.3e+400")),
        )
    ),
    (
        "jacobian",
        of(jacobian_bound_log10=2.0),
        "The product of the layers' largest singular values is 1e+02.",
    ),
    ("paths", of(PATHS), "through 4.2 of 9 branches on average; a path taken at random passes 4.5"),
    (
        "shattering",
        of(SHATTERING),
        "a cosine of 0.1 with respect to the input of the first layer and of 0.6",
    ),
    (
        "dying_units",
        over_time("dead_fraction", [0.02, 0.01, 0.0], [0.5, 0.1, 0.0], [0.9, 0.49, 0.0]),
        "In layer 1 (layers.0) at least half of the units are dead since step 20: a share of 0.9 at"
        " the end, 0.02 at first.",
    ),
    (
        "dying_units",
        over_time("dead_fraction", [0.5, 0.1, 0.0], [0.6, 0.7, 0.0], [0.6, 1.0, 0.0]),
        "In layers 1 to 2 (layers.0 to layers.1) at least half of the units are dead since step 0"
        " (layer 1) and, the last of them, step 20: a share of up to 1 at the end, at most 0.5 at"
        " first.",
    ),
    (
        "dying_units",
        over_time("dead_fraction", [1.0, 0.0], [0.0, 0.0], [1.0, 0.0], first_step=100),
        "since step 140",
    ),
    (
        "saturating_units",
        over_time("saturated_fraction", [0.5, np.nan], [np.nan, np.nan], [0.75, np.nan]),
        "In layer 1 (layers.0) at least half of what the activation reads saturates it at every"
        " measured step: a share of 0.75 at the end.",
    ),
    (
        "no_gradient",
        over_time("grad_norm", [1.0, 1.0, 1.0], [0.0, 0.0, 1e-300], [0.0, 0.0, 1.0]),
        "Layers 1 to 2 (layers.0 to layers.1) get no gradient at all since step 20: every entry of"
        " it is exactly 0.",
    ),
    (
        "no_gradient",
        over_time("grad_norm", [0.0, 1.0], [0.0, 1.0], verdict="healthy"),
        "Layer 1 (layers.0) gets no gradient at all at every measured step: every entry of it is"
        " exactly 0. What was learned was learned without it.",
    ),
    (
        "not_finite",
        over_time("preact_std", [1.0, 1.0, 1.0], [1.0, np.nan, np.inf], [np.nan] * 3),
        "At step 20 z of layer 2 (layers.1) is the first that is not finite: the forward pass made",
    ),
    (
        "not_finite",
        over_time("grad_norm", [1.0, 1.0, 1.0], [np.nan, np.inf, 1.0]),
        "At step 20 the gradient of layer 2 (layers.1) is the first on the way back that is not",
    ),
    (
        "not_finite",
        over_time("weight_norm", [1.0, 1.0], [1.0, 1.0], [np.inf, 1.0], verdict="stalled"),
        "At step 40 the weights of layer 1 (layers.0) are not finite: an update before made it.",
    ),
    ("diverged", of(verdict="diverged", cause="z became inf."), "The run diverged: z became inf."),
    *(
        ("diverged", of(DIVERGED, nonfinite_maker=maker, nonfinite_place=place), words)
        for maker, place, words in (
            ("data", "", "z became inf. The batch of this step is not finite."),
            ("initialisation", "a.weight", "The initialisation made a.weight, which is not finite"),
            (
                "update",
                "a.weight",
                "The optimizer's update at step 11 made it: since then a.weight is not finite.",
            ),
            ("forward", "a (Exp)", "The forward pass made it, in a (Exp): the weights and the"),
            ("forward", "", "The forward pass made it: the weights and the batch are finite."),
            ("loss", "", "The loss made it: the network's outputs are finite, the loss is not."),
            (
                "loss",
                "sqrt",
                "The loss made it: the network's outputs and the loss are finite, the gradient of"
                " its sqrt is not.",
            ),
            (
                "backward",
                "sqrt in a (Root)",
                "A branch of the backward pass made it: the loss is finite, the gradient of sqrt in"
                " a (Root) is not.",
            ),
        )
    ),
    (
        "loss",
        of(LOSS, verdict="healthy", signal="steady", constant_loss=2.5),
        "It learned: the training loss went from 2.50 at the first step to 2.00 over the last 20"
        " (lowest mean over 20 steps 1.90; guessing gives 2.50).",
    ),
    (
        "loss",
        of(LOSS, ACCURACY, verdict="healthy", constant_loss=2.5),
        "Even so it learned: the training loss went from 2.50 at the first step to 2.00 over the"
        " last 20 (lowest mean over 20 steps 1.90; guessing gives 2.50); the accuracy was 0.12, at"
        " best 0.62, at the end 0.50.",
    ),
    (
        "loss",
        of(LOSS, ACCURACY, verdict="relapsed", constant_loss=2.2, relapse_step=340),
        "It learned and lost it after step 340: the training loss was 2.50 at the first step, 1.90"
        " over the best 20 steps and 2.00 over the last 20, where guessing gives 2.20; the accuracy"
        " was 0.12, at best 0.62, at the end 0.50.",
    ),
    ("loss_at_start", Evidence({"loss_at_start": 0.7}), "The loss at the start is 0.700."),
    (
        "loss_at_start",
        Evidence({"loss_at_start": 2.31, "constant_loss": math.log(10)}),
        "start is 2.31; guessing among 10 classes gives log 10 = 2.30.",
    ),
    (
        "loss_at_start",
        Evidence({"loss_at_start": 12.8, "constant_loss": math.log(8000)}),
        "log 8000 = 8.99.",
    ),
    (
        "loss_at_start",
        Evidence({"loss_at_start": 6.3, "constant_loss": math.log(5)}),
        "It is 3.9 times as much: the logits begin large.",
    ),
    (
        "loss_at_start",
        Evidence({"loss_at_start": 1.4, "constant_loss": 1.02}),
        "guessing gives 1.02.",
    ),
    (
        "loss_not_finite",
        Evidence({"loss_first": 2.3}, tables={"steps": steps_of([2.3, 2.2, math.nan, math.nan])}),
        "The loss is nan since step 2; at the first step it was 2.30.",
    ),
    ("loss", of(LOSS, verdict="relapsed"), "over the last 20, which is what guessing gives 2.00."),
    # The summary of an earlier version calls healthy what it now calls relapsed.
    ("loss", of(LOSS, verdict="healthy", constant_loss=2.2), "It learned and lost it: the"),
    ("loss", of(LOSS, verdict="healthy", constant_loss=2.0 / 0.9), "It learned and lost it: the"),
    ("loss", of(LOSS, verdict="healthy", constant_loss=2.01 / 0.9), "Even so it learned: the"),
    (
        "loss",
        of(LOSS, verdict="undecided", steps=99),
        "It has not learned yet, but fewer than 100 steps are too few to tell: the training loss"
        " went from 2.50 at the first step to 2.00 over the last 20 (lowest mean over 20 steps"
        " 1.90; guessing gives 2.00).",
    ),
    (
        "loss",
        of(LOSS, verdict="undecided", steps=100),
        "It has not learned yet, and the loss still falls: the training loss went from 2.50",
    ),
    (
        "loss",
        of(LOSS, constant_loss=None),
        "(lowest mean over 20 steps 1.90); the loss of a constant guess is not",
    ),
    # A loss within 1 % of a guess's is what guessing gives.
    ("loss", of(LOSS, loss_last_mean_20=2.0 * 1.0099), "which is what guessing gives (2.00)."),
    ("loss", of(LOSS, loss_last_mean_20=2.0 * 0.9901), "which is what guessing gives (2.00)."),
    ("loss", of(LOSS, loss_last_mean_20=2.0 * 1.0101), "did not learn, as far as it went: the"),
    ("loss", of(LOSS, loss_last_mean_20=2.0 * 0.9899), "did not learn, as far as it went: the"),
    ("loss", of(LOSS, steps=19), "was 2.00 over the last 19 steps"),
    ("loss", of(LOSS, steps=21), "was 2.00 over the last 20 steps"),
    ("curvature", of(CURVATURE, sharpness_over_limit=None), "eigenvalue was 7 at the end."),
    ("curvature", of(CURVATURE, sharpness_over_limit=1.0), "The largest Hessian eigenvalue was"),
    ("curvature", of(CURVATURE, sharpness_over_limit=1.001), "The step is too large for the"),
    ("curvature", of(CURVATURE, curvature_over_limit_max=0.00999), "The landscape is flat: no"),
    ("curvature", of(CURVATURE, curvature_over_limit_max=0.01), "The largest Hessian eigenvalue"),
    (
        "curvature",
        of(CURVATURE, verdict="vanishing"),
        "The signal is lost, the landscape is not flat: the largest Hessian eigenvalue was mostly"
        " 0.5 of the stability limit of this learning rate.",
    ),
    ("underflow", underflow(1, "float32"), "number of float32 (1.2e-38)."),
    ("underflow", underflow(1, "float16"), "(6.1e-05), the loss scale multiplied in."),
    ("underflow", underflow(3, "float64"), "In 3 of 20 layers the backward signal fell below the"),
    ("unfinished", of(status="interrupted"), "The run did not reach its end: interrupted."),
    (
        "unfinished",
        of(status="stopped", reason="stalled, after 200 steps"),
        "A rule ended the run early: stalled, after 200 steps.",
    ),
    (
        "unfinished",
        of(status="failed", reason="\x1b[31mno\nmemory"),
        "The run did not reach its end: failed: \\x1b[31mno\\nmemory.",
    ),
]
"""Rule, evidence, and a part of the sentence that it must find."""

SILENT: list[tuple[str, Evidence]] = [
    ("loss_not_finite", Evidence({}, tables={"steps": steps_of([2.3, math.nan, 2.2])})),
    ("gradient", of()),
    ("hidden_by_weights", hidden(1e-6, 0.99e-3)),
    ("hidden_by_weights", hidden(1e-6, 1.01e3)),
    ("hidden_by_weights", hidden(1e6, 1.01e3)),
    ("hidden_by_weights", hidden(1e6, 0.99e-3)),
    ("hidden_by_weights", hidden(0.0, 1.0)),
    ("hidden_by_weights", hidden(1e-6, 0.0)),
    ("hidden_by_weights", of(SIGNAL, signal="steady", weight_gradient_ratio=1.0)),
    ("gradient_last", evidence_of_layers(VANISHING)),
    ("gradient_last", of(SIGNAL, signal_last="vanishing", num_layers_last=21)),
    ("no_prediction", of(THEORY, theory="few units")),
    ("no_prediction", of(IN_TIME, theory="few units")),
    ("prediction", of(theory="few units")),
    ("predicted_parts", of(THEORY, PARTS, weight_gain=None)),
    ("predicted_parts", of(THEORY, PARTS, IN_TIME)),
    ("predicted_depth", of(THEORY)),
    ("phase", of(THEORY, critical_gain=1.5, critical_attenuation=0.9)),
    ("through_time", of(time_attenuation=0.01)),
    ("predicted_through_time", of(IN_TIME)),
    ("fitted_variances", of(fitted_variance_min=0.9)),
    ("jacobian", of(jacobian_largest_log10=1.0)),
    ("paths", of(path_length=1.0)),
    ("shattering", of(gradient_correlation=1.0)),
    ("dying_units", over_time("dead_fraction", [1.0, 0.0], [0.49, 0.0])),
    ("saturating_units", over_time("saturated_fraction", [1.0, 0.0], [0.49, np.nan])),
    # A gradient of 0 at the start alone is what a branch that begins at 0 has.
    ("no_gradient", over_time("grad_norm", [0.0, 1.0], [1e-300, 1.0])),
    ("no_gradient", over_time("grad_norm", [np.nan, 1.0], [np.nan, 1.0])),
    ("not_finite", over_time("grad_norm", [1.0, np.nan], [1.0, np.nan])),
    ("not_finite", over_time("preact_std", [1.0, 1.0], [np.nan, np.nan])),
    ("not_finite", over_time("grad_norm", [1.0, 1.0], [np.inf, 1.0], verdict="diverged")),
    ("diverged", of(verdict="stalled", cause="the signal is steady")),
    ("loss_at_start", Evidence({"loss_at_start": math.nan})),
    ("loss", of(LOSS, verdict="diverged")),
    ("loss", of(LOSS, loss_last_mean_20=None)),
    ("curvature", of(CURVATURE, sharpness_last=None)),
    ("underflow", underflow(0, "float32")),
    ("unfinished", of(status="completed")),
    ("unfinished", of(status="diverged")),
]


@pytest.mark.parametrize(("name", "evidence", "words"), TELLS)
def test_a_rule_finds_what_its_evidence_shows(name: str, evidence: Evidence, words: str) -> None:
    found = RULES[name](evidence)
    assert isinstance(found, Finding)
    assert words in found.sentence
    assert found.sentence[0].isupper() or found.sentence[0].isdigit()
    assert found.sentence.endswith(".")
    assert found.id == name


@pytest.mark.parametrize(("name", "evidence"), SILENT)
def test_a_rule_is_silent_where_its_evidence_shows_nothing(name: str, evidence: Evidence) -> None:
    assert RULES[name](evidence) is None


def test_the_order_of_the_rules_is_fixed() -> None:
    assert list(RULES) == [
        *("gradient", "hidden_by_weights", "gradient_last"),
        *("no_prediction", "prediction", "predicted_parts", "predicted_depth", "phase"),
        *("through_time", "predicted_through_time"),
        *("fitted_variances", "jacobian", "paths", "shattering"),
        *("dying_units", "saturating_units", "no_gradient", "not_finite"),
        *("diverged", "loss", "loss_not_finite", "loss_at_start", "curvature", "underflow"),
        "unfinished",
    ]


def test_every_rule_has_a_case_in_which_it_tells_and_one_in_which_it_is_silent() -> None:
    assert {name for name, *_ in TELLS} == set(RULES)
    assert {name for name, _ in SILENT} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_silent_about_evidence_of_nothing_and_says_what_it_needs(name: str) -> None:
    rule, nothing = RULES[name], Evidence({})
    assert rule(nothing) is None
    assert rule.reason_unchecked(nothing) == say_lacking(rule.needs, is_trained_here=False)
    assert rule.summary.endswith(".")


NEEDED: dict[str, Callable[[Evidence], Evidence]] = {
    "curvature.csv": lambda known: dataclasses.replace(known, tables={"curvature": VANISHING}),
    "config": lambda known: dataclasses.replace(known, config=object()),  # type: ignore[arg-type]
    "num_examples": lambda known: dataclasses.replace(known, num_examples=64),
    "chi": lambda known: dataclasses.replace(known, metrics={"chi": 0.0}),
}
"""What a rule may need -> evidence that has it too."""


@pytest.mark.parametrize("need", NEEDED)
def test_a_table_a_field_and_a_metric_can_be_needed(need: str) -> None:
    found = Finding("judge", "Something was found.")
    rule, nothing = Rule(lambda _: found, (need,)), Evidence({})
    assert rule(nothing) is None
    assert rule.reason_unchecked(nothing) == f"needs {need}"
    assert rule(NEEDED[need](nothing)) is found
    assert rule.reason_unchecked(NEEDED[need](nothing)) is None


# ---------------------------------------------------------------- what a finding holds


def finding(name: str, evidence: Evidence) -> Finding:
    found = RULES[name](evidence)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("first", "value", "limit"),
    [(1e-5, 1e-5, 1e-3), (1e5, 1e5, 1e3), (0.5, 0.5, None), (math.inf, math.inf, 1e3)],
)
def test_the_gradient_is_compared_with_the_threshold_of_its_kind(
    first: float, value: float, limit: float | None
) -> None:
    found = finding("gradient", evidence_of_layers(layers_of([first, 1.0, 1.0])))
    assert found.numbers == {"attenuation": (value, limit)}
    assert (found.step, found.layers) == (0, ("layers.0", "layers.2"))


def test_the_last_gradient_has_the_step_and_the_layers_that_it_is_about() -> None:
    found = finding("gradient_last", two_steps([1e-5, 1.0]))
    assert (found.step, found.layers) == (7, ("layers.0", "layers.1"))
    assert found.numbers == {"attenuation_last": (1e-5, 1e-3)}


def test_an_undefined_attenuation_is_no_number() -> None:
    assert finding("gradient", evidence_of_layers(layers_of([1.0, np.inf]))).numbers == {}


def test_hidden_gradients_are_compared_with_the_root_of_the_signal() -> None:
    found = finding("hidden_by_weights", hidden(1e-6, 0.5))
    value, limit = found.numbers["weight_gradient_ratio"]
    assert (value, limit) == (0.5, pytest.approx(1e-3))
    assert found.layers == (), "a summary names no layer"


def test_the_remedy_of_lost_numbers_is_a_wider_dtype() -> None:
    (remedy,) = finding("underflow", underflow(1, "float32")).remedies
    assert remedy.override == "dtype=float64"
    assert remedy.words == "dtype=float64 shows the true value."
    assert finding("underflow", underflow(1, "float64")).remedies == ()


def test_the_remedy_of_a_phase_is_the_critical_gain_where_it_is_another_one() -> None:
    at_gain = {"critical_gain": 1.4142, "critical_attenuation": 0.9}
    (remedy,) = finding("phase", of(THEORY, at_gain, chi=0.5)).remedies
    assert remedy.override == "model.gain=1.41"
    assert remedy.words == (
        "model.gain=1.41 makes chi 1 (signal.critical=true): at this depth layer 1 would get 0.9 of"
        " what the last gets."
    )
    assert finding("phase", of(THEORY, chi=0.5, critical_gain=1.4142)).remedies == ()
    assert finding("phase", of(THEORY, chi=0.5, critical_attenuation=0.9)).remedies == ()


def test_a_loss_is_compared_with_nine_tenths_of_a_guess() -> None:
    assert finding("loss", of(LOSS)).numbers["loss_best_mean_20"] == (1.9, 1.8)
    unknown = finding("loss", of(LOSS, constant_loss=None))
    assert unknown.numbers["loss_best_mean_20"] == (1.9, None)


@pytest.mark.parametrize("name", ["jacobian", "paths", "shattering"])
def test_directions_are_of_the_first_of_many_seeds(name: str) -> None:
    metrics = {**JACOBIAN, **PATHS, **SHATTERING}
    assert finding(name, of(metrics, num_seeds=2)).scope == "On the first seed:"
    assert finding(name, of(metrics, num_seeds=1)).scope == ""
