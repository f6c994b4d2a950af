"""One cause among several findings, and what a diagnosis says of a network's health.

Holds: diagnosis/root.py, diagnosis/page.py, diagnosis/whole.py
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import EXPLODING, GUESSING, STEADY, VANISHING, layers_of, steps_of, summary_of
from test_cause_rules import SUDDENLY, layers, loss, of, read

from vgexp.diagnosis import (
    cause_metrics,
    conclude,
    diagnose,
    evidence_of_run,
    evidence_of_tables,
    root,
)
from vgexp.diagnosis.diagnosis import Diagnosis
from vgexp.diagnosis.findings import Finding, Remedy
from vgexp.diagnosis.page import page_of
from vgexp.diagnosis.root import experiment, order
from vgexp.errors import QuestionError
from vgexp.quantities import TABLES

CHANCE = [GUESSING] * 120


def found(id: str, step: int | None = 0) -> Finding:
    return Finding(id, f"{id}.", step=step)


def of_run(layers: Any, losses: Any, **changes: Any) -> Diagnosis:
    summary = summary_of(layers, losses, **changes)
    return conclude(evidence_of_run(summary, {"layers": layers, "steps": steps_of(losses)}))


@pytest.mark.parametrize(
    ("ids", "cause", "rivals"),
    [
        ([("dead_units", 20), ("rate_too_large", 0)], "rate_too_large", []),
        # What came before cannot be its consequence.
        ([("dead_units", 20), ("rate_too_large", 40)], "dead_units", ["rate_too_large"]),
        ([("inputs_unscaled", 0), ("rate_too_large", 0)], "inputs_unscaled", []),
        # By way of rate_too_large, which was not found itself.
        ([("dead_units", 20), ("inputs_unscaled", 0)], "inputs_unscaled", []),
        ([("inputs_unscaled", 0), ("no_warmup", 0)], "inputs_unscaled", ["no_warmup"]),
        # But not before what came earlier.
        ([("recurrence_vanishing", 0), ("overflow", 9)], "recurrence_vanishing", ["overflow"]),
        # A fact of the wiring is named before a threshold.
        ([("inputs_unscaled", 0), ("graph_cut", 0)], "graph_cut", ["inputs_unscaled"]),
    ],
)
def test_the_cause_is_the_earliest_finding_that_no_other_explains(
    ids: list[tuple[str, int]], cause: str, rivals: list[str]
) -> None:
    first, following, others = order([found(*each) for each in ids])

    assert first.id == cause
    assert first.kind == "sickness"
    assert [each.id for each in others] == rivals
    assert {first.id, *rivals, *(each.id for each in following)} == {id for id, _ in ids}
    assert all(each.kind == "consequence" for each in following)


def test_consequences_stand_in_order_of_onset() -> None:
    ids = [("dead_units", 40), ("rate_too_large", 0), ("saturated_units", 20)]
    first, following, _ = order([found(*each) for each in ids])

    assert [each.id for each in following] == ["saturated_units", "dead_units"]
    assert first.explains == ("saturated_units", "dead_units")


def test_an_experiment_tells_two_causes_apart() -> None:
    remedy = Remedy("Lower it.", "It helps.", "optimizer.lr=0.1")
    cause = Finding("rate_too_large", "Too long.", remedies=(remedy,))
    assert experiment(cause, found("frozen")) == (
        "Train once more with optimizer.lr=0.1 alone: if the network then learns, rate_too_large"
        " was the cause, and else frozen."
    )
    assert "Cure frozen alone" in experiment(found("frozen"), cause)


def test_a_network_that_learned_has_no_cause_whatever_its_signal() -> None:
    diagnosis = of_run(VANISHING, [2.3] + [0.5] * 120)
    assert (diagnosis.health, diagnosis.cause) == ("healthy", None)
    assert all(each.kind == "note" for each in diagnosis.findings)


def test_a_signal_that_is_lost_in_part_is_the_cause_where_nothing_else_is() -> None:
    # z of 0.5 a layer by weights of 0.5, of which h is all: a factor of 0.25 a layer.
    lost = layers_of([0.02, 0.05, 0.1, 0.3]).assign(preact_std=0.5, act_std=1.0, act_mean=0.0)
    sick = of_run(lost, CHANCE)
    assert (sick.health, sick.cause) == ("sick", "weights_small")
    assert sick.findings[0].numbers["attenuation"].limit == 0.1
    kept = lost.assign(delta_rms=[0.2, 0.25, 0.3, 0.3, 0.3])
    assert of_run(kept, CHANCE).cause == "unknown"
    assert of_run(lost, np.linspace(2.3, 0.1, 120)).cause is None


@pytest.mark.parametrize(
    ("first", "cause", "attenuation"),
    [(0.002, "weights_small", 0.0067), (0.02, "rate_too_small", None)],
)
def test_a_small_rate_follows_from_a_signal_of_which_a_hundredth_is_left(
    first: float, cause: str, attenuation: float | None
) -> None:
    lost = layers_of([first, 0.05, 0.1, 0.3]).assign(preact_std=0.5, act_std=1.0, act_mean=0.0)
    sick = of_run(lost.assign(update_ratio=1e-5), CHANCE)
    assert (sick.health, sick.cause) == ("sick", cause)
    if attenuation is not None:
        assert sick.findings[0].numbers["attenuation"].value == pytest.approx(attenuation, abs=1e-4)
        assert [each.id for each in sick.findings if each.kind == "consequence"] == [
            "rate_too_small"
        ]


def test_a_short_run_without_a_finding_is_undecided_and_a_long_one_unknown() -> None:
    assert of_run(STEADY, [GUESSING] * 99).health == "undecided"
    long = of_run(STEADY, CHANCE)
    assert (long.health, long.cause) == ("sick", "unknown")


def test_a_loss_that_still_falls_is_undecided() -> None:
    assert of_run(STEADY, np.linspace(5.0, 2.25, 200)).health == "undecided"


def test_a_vanishing_run_names_its_cause_its_step_and_its_layer() -> None:
    diagnosis = of_run(VANISHING, CHANCE)
    assert (diagnosis.health, diagnosis.cause) == ("sick", "saturating_activation")
    assert (diagnosis.step, diagnosis.layer) == (0, "layers.0")
    assert diagnosis.findings[0].numbers["attenuation"].limit == 1e-3


def test_without_an_optimizer_step_there_was_no_update() -> None:
    unseen = ["the model: no optimizer step was seen in a `with`"]
    diagnosis = conclude(evidence_of_tables({}, unseen=unseen))
    assert (diagnosis.health, diagnosis.cause) == ("sick", "no_update")


def test_nothing_measured_is_undecided_and_says_what_it_lacks() -> None:
    diagnosis = conclude(evidence_of_tables({}))
    assert (diagnosis.health, diagnosis.cause) == ("undecided", None)
    assert diagnosis.unchecked["double_softmax"] == "the loss was not watched (probe.watch_loss)"


def test_all_nan_is_a_diagnosis_too() -> None:
    layers = layers_of([math.nan] * 3).assign(delta_rms=math.nan, weight_norm=math.nan)
    steps = steps_of([math.nan] * 30)
    diagnosis = conclude(evidence_of_tables({"layers": layers, "steps": steps}))
    assert diagnosis.cause is None
    assert "Health: undecided" in str(diagnosis)


def test_a_page_has_the_evidence_its_limit_and_the_command_to_type() -> None:
    diagnosis = of_run(VANISHING, CHANCE)
    command = ["vgexp", "train", "model.skip=none", "seed=3"]
    page = page_of(diagnosis, command, shows_all=True)
    assert page.startswith("Health: sick (verdict: vanishing)\nCause: saturating_activation, since")
    assert "attenuation 1e-09  (below the limit 0.001)" in page
    assert "    vgexp train seed=3 model.skip=residual\n" in page
    assert "the loss was not watched (probe.watch_loss)" in page.replace("\n  ", " ")
    assert "    x = x + block(x)\n" in str(diagnosis)


def test_json_holds_no_number_that_json_has_not() -> None:
    layers = layers_of([math.inf, 1.0, 1.0])
    told = of_run(layers, CHANCE).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["findings"][0]["kind"] == "sickness"


@pytest.mark.parametrize(
    "column", [c.name for c in TABLES["layers"] if c.name not in ("step", "layer", "kind")]
)
def test_a_frame_that_lacks_a_column_is_diagnosed_without(column: str) -> None:
    if column == "delta_rms":
        with pytest.raises(QuestionError, match="lacks the columns delta_rms"):
            diagnose(VANISHING.drop(columns=column))
        return
    diagnosis = diagnose(VANISHING.drop(columns=column))
    assert diagnosis.cause == "saturating_activation"
    assert diagnosis.layer == ("layer 1" if column == "name" else "layers.0")


def test_cells_that_are_no_numbers_were_not_measured() -> None:
    frame = VANISHING.assign(weight_norm="?", update_ratio="?", dead_fraction="?")
    assert diagnose(frame).cause == "saturating_activation"


def test_rows_without_a_step_are_left_out() -> None:
    frame = pd.concat([VANISHING, EXPLODING.assign(step=math.nan)])
    assert diagnose(frame).cause == "saturating_activation"


def test_what_shrinks_a_signal_is_no_cause_of_a_loss_that_grows() -> None:
    rows = STEADY
    ending = {"time_attenuation": 1e-5}
    for losses, cause in ((CHANCE, "recurrence_vanishing"), ([2.3, 50.0, 400.0], "rate_too_large")):
        tables = {"layers": rows, "steps": steps_of([*losses, *[losses[-1]] * 120])}
        evidence = evidence_of_tables(tables, ending={**ending, "constant_loss": GUESSING})
        diagnosis = conclude(evidence)
        assert (diagnosis.cause, diagnosis.rivals) == (cause, ())


def test_a_loss_that_is_not_finite_is_a_sickness_however_short_the_run() -> None:
    shown = conclude(of(loss=read(output=1.0), steps=SUDDENLY))
    assert (shown.health, shown.cause) == ("sick", "unknown")
    assert "from step 3 on" in shown.sentence
    assert "the forward pass made it" in shown.sentence
    never = steps_of([math.nan] * 5, grad_norm=math.nan)
    assert conclude(of(loss=read(output=1.0), steps=never)).health == "sick"
    # Nobody measured it.
    assert conclude(of(loss=loss(), steps=never)).health == "undecided"


@pytest.mark.parametrize("function", ["has_learned", "order", "with_whole_tables", "_counts"])
def test_an_error_in_what_makes_a_cause_of_findings_is_told_and_not_raised(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("of no use")

    evidence = of(layers=layers(update_ratio=2.0))
    assert conclude(evidence).cause is not None
    monkeypatch.setattr(root, function, fail)
    diagnosis = conclude(evidence)
    assert (diagnosis.health, diagnosis.cause) == ("undecided", None) or function == "_counts"
    assert "raised ZeroDivisionError: of no use" in {*diagnosis.unchecked.values()}
    assert "raised ZeroDivisionError: of no use" in " ".join(str(diagnosis).split())


def test_no_run_is_lost_for_a_cause_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> Any:
        raise QuestionError("damaged")

    monkeypatch.setattr("vgexp.diagnosis.diagnosis.find_root", fail)
    metrics = cause_metrics(of())
    assert metrics == {"cause_id": None, "cause_step": None, "cause_layer": None}
