"""What rules and the root make of one update before training, which a check tries on a copy.

Holds: diagnosis/root.py, diagnosis/evidence.py, diagnosis/findings.py, diagnosis/rules/wiring.py,
diagnosis/rules/losses.py, diagnosis/rules/inputs.py, diagnosis/rules/updates.py,
diagnosis/rules/depth.py, diagnosis/rules/notes.py
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from layer_tables import layers_of, steps_of
from test_cause_rules import NAMES, layers, loss, wiring

from vgexp.diagnosis import CAUSE_RULES, Diagnosis, Evidence, conclude, evidence_of_tables

ADAM = {"optimizer.class": "torch.optim.adam.Adam", "optimizer.eps": 1e-8}
SGD = {"optimizer.class": "torch.optim.sgd.SGD", "optimizer.momentum": 0.9}
LOG_10 = math.log(10)


def evidence(
    settings: Any = ADAM, withheld: Any = None, facts: Any = None, **tables: Any
) -> Evidence:
    """One usual update, but for what is given."""
    usual = {"layers": layers((0,)), "steps": steps_of([2.31], grad_norm=1.0), "wiring": wiring()}
    known = evidence_of_tables(
        {**usual, **tables},
        settings=settings,
        dtype="float32",
        num_examples=64,
        ending={"loss_at_start": 2.31, "constant_loss": LOG_10, **(facts or {})},
    )
    return dataclasses.replace(known, is_check=True, withheld=withheld or {})


def of(**given: Any) -> Diagnosis:
    return conclude(evidence(**given))


def falling(attenuation: float, num: int = 8) -> Any:
    """Layers whose signal falls from the last to the first by this factor, alike in each."""
    rows = layers_of(np.geomspace(attenuation, 1, num), act_mean=0.0, act_std=1.0)
    return rows.assign(preact_std=0.6, update_ratio=1e-3, weight_norm=8.0)


def test_a_usual_update_is_healthy() -> None:
    found = of()
    assert (found.health, found.cause) == ("healthy", None)


@pytest.mark.parametrize(
    ("size", "facts", "health", "cause"),
    [
        # Targets may be far from 0: what costs as much is not told by one update.
        (1.0, {"inputs_rms": 1.0}, "undecided", None),
        (1e3, {"inputs_rms": 1.0}, "sick", "weights_large"),
        (1e3, {}, "undecided", None),
        (1e3, {"inputs_rms": 1e3}, "sick", "inputs_unscaled"),
        (1.0, {"inputs_rms": 1.0, "loss_at_start": 200.0}, "healthy", None),
    ],
)
def test_a_first_loss_of_more_than_a_hundred_guesses_is_not_healthy(
    size: float, facts: dict[str, float], health: str, cause: str | None
) -> None:
    table = loss(std=size).assign(mean=[0.0, 4.5, 1e3])
    facts = {"loss_at_start": 1e3, **facts}
    found = of(loss=table, facts=facts)
    assert (found.health, found.cause) == (health, cause)


def test_without_a_gradient_or_a_loss_it_is_undecided() -> None:
    assert of(facts={"loss_at_start": None}).health == "undecided"
    silent = wiring(gradient_came=math.nan)
    assert of(wiring=silent).health == "undecided"


def test_what_is_withheld_is_not_asked_and_says_why() -> None:
    found = of(wiring=wiring(gradient_kept=1), withheld={"gradient_kept": "one update is one"})
    assert found.cause is None
    assert found.unchecked["gradient_kept"] == "one update is one"
    assert of(wiring=wiring(gradient_kept=1)).cause == "gradient_kept"


@pytest.mark.parametrize(
    ("settings", "attenuation", "health"),
    [
        (SGD, 1e-2, "healthy"),
        (SGD, 1e-4, "sick"),
        (ADAM, 1e-4, "healthy"),
        (ADAM, 1e-7, "healthy"),
        (ADAM, 1e-9, "sick"),
        ({}, 1e-4, "healthy"),
        ({}, 1e-9, "sick"),
    ],
)
def test_a_small_signal_is_judged_by_what_the_optimizer_makes_of_it(
    settings: Any, attenuation: float, health: str
) -> None:
    found = of(settings=settings, layers=falling(attenuation))
    assert found.health == health
    told = {each.id for each in found.findings}
    assert ("saturating_activation" in told) == (attenuation < 1e-3), "else a note"


def test_one_jump_is_no_factor_of_each_layer() -> None:
    deltas = np.array([1e-9, 1.1e-9, 1.2e-9, 1.3e-9, 1.0, 1.1])
    rows = layers_of(deltas, update_ratio=1e-3)  # no row tells what weights multiply by
    assert CAUSE_RULES["saturating_activation"](evidence(layers=rows)) is None
    even = layers_of(np.geomspace(1e-9, 1, 6), update_ratio=1e-3)
    assert CAUSE_RULES["saturating_activation"](evidence(layers=even)) is not None


def test_a_rate_of_0_is_no_update_unless_a_scheduler_holds_the_optimizer() -> None:
    tables = {"wiring": wiring(updated=0, lr=0.0), "layers": layers((0,), update_ratio=0.0)}
    assert of(**tables).cause == "no_update"
    assert of(settings={**ADAM, "optimizer.initial_lr": 0.1}, **tables).cause is None


def test_weights_that_no_optimizer_holds_and_that_stay_are_told_after_one_update() -> None:
    lost = {"in_optimizer": [0, 1, 1, 0], "updated": [0, 1, 1, 0]}
    assert of(wiring=wiring(**lost)).cause == "not_in_optimizer"
    # It trains the read-out, and may be meant to: unless it holds what was replaced, or the rest
    # has learned nothing before.
    lost = {"in_optimizer": [0, 1, 1, 1], "updated": [0, 1, 1, 1]}
    assert of(wiring=wiring(**lost)).cause is None
    for known in ({"foreign_parameters": 2}, {"default_weights": ["layers.0"]}):
        assert of(wiring=wiring(**lost), facts=known).cause == "not_in_optimizer"
    assert of(wiring=wiring(**{**lost, "in_optimizer": [math.nan, 1, 1, 1]})).cause is None


def test_frozen_weights_are_a_sickness_where_all_are() -> None:
    some = of(wiring=wiring(requires_grad=[0, 1, 1, 1]))
    assert (some.health, [each.kind for each in some.findings if each.id == "frozen"]) == (
        "healthy",
        ["note"],
    )
    every = of(wiring=wiring(requires_grad=0, gradient_came=0, gradient="none"))
    assert (every.cause, every.layer) == ("frozen", NAMES[0])


def test_a_loss_without_a_graph_is_a_cut() -> None:
    none = {"gradient_came": 0, "gradient": "none", "updated": 0}
    unseen = layers((0,), preact_std=math.nan)
    assert of(wiring=wiring(**none), layers=unseen).cause == "graph_cut"


def test_what_the_loss_does_not_depend_on_is_no_cut() -> None:
    aside = wiring(gradient_came=[1, 1, 0, 1], gradient=["finite", "finite", "none", "finite"])
    assert of(wiring=aside).cause == "graph_cut"
    found = of(wiring=aside, facts={"loss_ignores": [NAMES[2]]})
    assert found.health == "healthy"
    (note,) = [each for each in found.findings if each.id == "unused_parameters"]
    assert note.sentence == f"The loss does not depend on {NAMES[2]}."


def test_a_cut_right_in_front_of_the_read_out_is_found() -> None:
    assert of(layers=layers((0,), deltas=(0.0, 0.0, 0.0))).cause == "graph_cut"


@pytest.mark.parametrize(
    ("rms", "is_told"), [(1.0, False), (7.0, False), (200, True), (1e-3, True)]
)
def test_inputs_are_judged_by_what_the_first_layer_reads(rms: float, is_told: bool) -> None:
    assert (of(facts={"inputs_rms": rms}).cause == "inputs_unscaled") == is_told


@pytest.mark.parametrize(
    ("ratio", "after", "cause"),
    [
        (1e-3, 2.3, None),
        (3.0, 2.3, "rate_too_large"),
        (3.0, 1.9, None),  # the loss falls: weights that began near 0 are replaced by better ones
        ([30.0, 1e-3, 1e-3, 1e-3], 2.3, None),  # a scale that begins at 1e-6
        (1e-3, 40.0, "rate_too_large"),
        (1e-3, 20.0, None),
        (1e-3, math.inf, "rate_too_large"),
        (1e-3, math.nan, None),
    ],
)
def test_a_rate_is_too_large_for_most_weights_or_by_the_loss_behind_the_update(
    ratio: Any, after: float, cause: str | None
) -> None:
    found = of(layers=layers((0,), update_ratio=ratio), facts={"loss_after_update": after})
    assert found.cause == cause


def test_a_long_step_of_an_exploding_gradient_is_a_consequence() -> None:
    growing = layers((0,), update_ratio=3.0, deltas=(3e4, 1e2, 1.0))
    found = of(layers=growing, facts={"loss_after_update": 1.9})
    assert found.cause == "weights_large"
    assert [each.id for each in found.findings if each.kind == "consequence"] == ["rate_too_large"]


def test_a_loss_near_0_may_rise_far() -> None:
    facts = {"loss_at_start": 1e-4, "loss_after_update": 1e-2}
    assert of(facts=facts).cause is None
    assert of(facts={**facts, "constant_loss": None}).cause is None


def test_a_usual_epsilon_is_not_blamed_for_one_small_gradient() -> None:
    rows = layers((0,), grad_max=1e-11, update_ratio=1e-6)
    assert of(layers=rows).cause is None
    assert of(layers=rows, settings={**ADAM, "optimizer.eps": 1e-3}).cause == "optimizer_epsilon"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "The loss at the start is nan."),
        ({"not_finite_weights": ["a", "b"]}, "a and b hold nan or infinite values"),
        ({"not_finite_at": "blocks.2.norm"}, "blocks.2.norm makes the first value"),
    ],
)
def test_a_loss_that_is_not_finite_and_that_no_rule_explains_is_a_sickness(
    facts: Any, words: str
) -> None:
    steps = steps_of([math.nan], grad_norm=1.0)
    found = of(steps=steps, facts={"loss_at_start": math.nan, **facts})
    assert (found.health, found.cause) == ("sick", "unknown")
    assert words in found.sentence


def test_a_stream_that_grows_counts_where_the_loss_shows_it() -> None:
    rows = layers_of([1e5, 1e3, 10.0], kind=["stream", "stream", "linear", "readout"])
    rows = rows.assign(preact_std=1.0, act_mean=0.0, act_std=1.0, update_ratio=1e-3)
    assert of(layers=rows).health == "healthy"
    assert of(layers=rows, facts={"loss_at_start": 1e4}).cause == "residual_growth"


def test_thresholds_that_a_cause_explains_are_its_consequences() -> None:
    tables = {"layers": falling(1e-44), "loss": loss()}
    found = of(**tables)
    assert found.cause == "saturating_activation"
    assert [each.id for each in found.findings if each.kind == "consequence"] == ["underflow"]
