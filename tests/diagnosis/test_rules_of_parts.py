"""Rules where parts of a network are 0, frozen, not registered or not measured.

Holds: diagnosis/rules/initial_weights.py, diagnosis/rules/notes.py,
diagnosis/rules/backward_signal.py, diagnosis/rules/inputs.py, diagnosis/rules/depth.py,
diagnosis/rules/wiring.py, diagnosis/rules/multiplied.py, diagnosis/rules/recurrence.py,
diagnosis/diagnosis.py, unseen.py
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from layer_tables import steps_of
from test_cause_rules import NAN, layers, of, radius, wiring

from vgexp.diagnosis import CAUSE_RULES, conclude
from vgexp.diagnosis.rules.multiplied import usual_init
from vgexp.unseen import UNREGISTERED, list_shapes

# ---------------------------------------------------------------- weights of 0


@pytest.mark.parametrize(
    ("steps", "readout", "held", "is_found"),
    [
        # A read-out of 0 that gets a gradient is 0 no more at the next step.
        ((0,), (0.0, 0.3), 1, False),
        ((0,), (0.0, 0.3), 0, True),
        ((0,), (1.0, 0.3), 1, True),
        ((0, 20), (0.0, 0.3), 1, True),
    ],
)
def test_one_step_shows_nothing_of_weights_behind_a_zero_that_moves(
    steps: tuple[int, ...], readout: tuple[float, float], held: int, is_found: bool
) -> None:
    norm, gradient = readout
    table = layers(
        steps=steps,
        weight_norm=[1.0, 0.0, 0.0, norm],
        grad_norm=[0.1, 0.0, 0.0, gradient],
        deltas=(0.0, 0.0, 0.5),
    )
    answer = CAUSE_RULES["zero_weights"](
        of(layers=table, wiring=wiring(in_optimizer=[1, 1, 1, held]))
    )
    assert (answer is not None and "both stay" in answer.sentence) == is_found


# ---------------------------------------------------------------- inputs beside an embedding


@pytest.mark.parametrize(
    ("z", "act", "is_found"),
    [
        ([1.0, 1e4, 5e3, 1.0], [NAN, 0.7, 0.7, NAN], True),
        ([1.0, 10.0, 5.0, 1.0], [NAN, 0.7, 0.7, NAN], False),
        # What layer 1 gives is what its activation makes of z.
        ([1.0, 1e4, 5e3, 1.0], [0.7, 0.7, 0.7, NAN], False),
    ],
)
def test_inputs_beside_an_embedding_are_told_by_the_layer_that_reads_both(
    z: list[float], act: list[float], is_found: bool
) -> None:
    evidence = of(layers=layers(preact_std=z, act_std=act, weight_norm=4.0))
    found = CAUSE_RULES["inputs_unscaled"](evidence)
    assert (found is not None and found.layers == ("layers.1",)) == is_found
    assert (CAUSE_RULES["weights_large"](evidence) is None) == (is_found or z[1] < 100)


# ---------------------------------------------------------------- what is frozen


@pytest.mark.parametrize(
    ("requires_grad", "names"), [(0, None), (1, ("layers.1",)), ([1, 1, 0, 1], ("layers.1",))]
)
def test_of_frozen_weights_nobody_says_that_no_pass_uses_them(
    requires_grad: Any, names: tuple[str, ...] | None
) -> None:
    lost = ["layers.1", "layers.2"] if isinstance(requires_grad, list) else ["layers.1"]
    table = layers()
    is_lost = table["name"].isin(lost)
    table.loc[is_lost, ["preact_std", "grad_norm"]] = NAN
    rows = wiring(requires_grad=requires_grad)
    gone = rows["name"].isin(lost)
    rows.loc[gone, "gradient_came"] = 0
    rows.loc[gone, "gradient"] = "none"
    if requires_grad == 0:
        rows.loc[~gone, "requires_grad"] = 1
    answer = CAUSE_RULES["unused_parameters"](of(layers=table, wiring=rows))
    assert (None if answer is None else answer.layers) == names


# ---------------------------------------------------------------- gradients that are kept


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        # A cell stands until another follows: 1 at steps 1, 20 and 40.
        ({0: NAN, 1: 1}, "are never cleared"),
        ({0: NAN, 1: 1, 40: 0}, "are not cleared at 2 of 3 steps that were looked at"),
        ({0: NAN, 1: 1, 20: 0, 40: 1}, "are not cleared at 2 of 3 steps that were looked at"),
    ],
)
def test_it_is_told_how_often_gradients_were_not_cleared(
    looks: dict[int, float], words: str
) -> None:
    rows = pd.concat(wiring(gradient_kept=kept).assign(step=step) for step, kept in looks.items())
    found = CAUSE_RULES["gradient_kept"](of(layers=layers((0, 20, 40)), wiring=rows))
    assert found is not None
    assert words in found.sentence


def test_that_a_network_learned_and_lost_it_is_told_once() -> None:
    losses = steps_of([2.3] * 20 + [0.5] * 60 + [2.3] * 60, grad_norm=1.0)
    ends = {"constant_loss": 2.3, "loss_best_mean_20": 0.5, "loss_last_mean_20": 2.3}
    told = conclude(of(steps=losses, extra={**ends, "verdict": "relapsed"}))
    assert told.sentence.count("It learned") == 1


# ---------------------------------------------------------------- what is not registered


def test_shapes_that_are_alike_are_counted() -> None:
    assert list_shapes(["a"]) == "a"
    assert list_shapes(["a", *["b"] * 15, "a"]) == "2 x a, 15 x b"
    many = [f"[{n}]" for n in range(8)]
    assert list_shapes(many) == ", ".join(many)
    assert list_shapes([*many, "c", "c", "d"]).endswith("[7] and 3 more")


def test_nothing_is_said_of_the_path_where_layers_ran_that_are_not_registered() -> None:
    evidence = of(layers=layers(deltas=(0.5,)), unseen=())
    assert "one hidden layer" in conclude(evidence).sentence
    line = f"the model: {UNREGISTERED.format('15 x [64, 64] in linear')}"
    told = conclude(replace(evidence, unseen=(line,)))
    assert "hidden layer" not in told.sentence
    assert "15 x [64, 64] in linear" in told.findings[0].sentence


# ---------------------------------------------------------------- remedies that fit the network


@pytest.mark.parametrize(("saturated", "init"), [(0.0, "xavier_normal_"), (NAN, "kaiming_normal_")])
def test_weights_are_drawn_as_the_activation_needs(saturated: float, init: str) -> None:
    assert init in str(usual_init(of(layers=layers(saturated_fraction=saturated))).code)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("rnn.weight_hh_l0", "nn.init.orthogonal_(rnn.weight_hh_l0)"),
        ("wh.weight", "nn.init.orthogonal_(wh.weight)  # the weight that reads the state"),
    ],
)
def test_the_matrix_of_a_recurrence_by_hand_has_its_own_name(name: str, code: str) -> None:
    table = radius(1.0).assign(name=name)
    evidence = of(recurrence=table, extra={"time_attenuation": 1e-6})
    found = CAUSE_RULES["recurrence_vanishing"](evidence)
    assert found is not None
    assert found.remedies[-1].code == code
