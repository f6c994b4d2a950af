"""What tells a rate that is too small or too large from a loss that is at fault, on tables.

Holds: diagnosis/rules/updates.py, diagnosis/rules/long_steps.py, diagnosis/rules/short_steps.py,
diagnosis/rules/epsilons.py, diagnosis/rules/training.py, diagnosis/outcome.py
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import layers_of, steps_of

from vgexp.diagnosis import CAUSE_RULES, Diagnosis, Evidence, conclude
from vgexp.diagnosis.evidence import evidence_of_tables
from vgexp.diagnosis.outcome import constant_loss
from vgexp.quantities import TABLES

NAN, INF = math.nan, math.inf


def layers(**columns: Any) -> pd.DataFrame:
    """Two layers and a read-out, at steps 0 and 20."""
    usual = {
        "grad_norm": 0.1,
        "grad_max": 0.01,
        "update_ratio": 1e-2,
        "preact_std": 1.0,
        "act_std": 0.7,
    }
    parts = [layers_of(np.full(2, 0.5), step=step, **{**usual, **columns}) for step in (0, 20)]
    return pd.concat(parts, ignore_index=True)


def call(
    output: tuple[float, float],
    target: tuple[float, float],
    result: float,
    step: int = 0,
    shapes: tuple[str, str] = ("64x1", "64x1"),
    name: str = "MSELoss",
) -> pd.DataFrame:
    """A call of a loss, of outputs and targets of these means and standard deviations."""
    frame = pd.DataFrame({column.name: NAN for column in TABLES["loss"]}, range(3)).astype(
        dict.fromkeys(("function", "name", "role", "shape", "dtype", "made_by"), object)
    )
    frame["step"], frame["function"] = step, name
    frame["name"], frame["role"] = ["input", "target", "result"], ["output", "target", "loss"]
    frame["shape"], frame["dtype"] = [*shapes, "scalar"], "float32"
    frame["mean"], frame["std"] = [output[0], target[0], result], [output[1], target[1], 0.0]
    frame["min"] = frame["mean"] - 2 * frame["std"]
    frame["max"] = frame["mean"] + 2 * frame["std"]
    return frame.assign(not_finite=[0.0, 0.0, float(not math.isfinite(result))])


def of(guess: float | None = None, settings: Any = None, **tables: Any) -> Evidence:
    ending = None if guess is None else {"constant_loss": guess}
    known = {"layers": layers(), **tables}
    return evidence_of_tables(
        known, dtype="float32", num_examples=64, settings=settings, ending=ending
    )


def of_course(losses: Any, norms: Any, **changes: Any) -> Diagnosis:
    """That of a run with these losses and gradients, where guessing costs 1."""
    steps = steps_of(losses, grad_norm=norms)
    return conclude(of(1.0, steps=steps, layers=layers(**changes)))


@pytest.mark.parametrize(
    ("outputs", "cause"),
    [
        # A quotient by 0 is infinite whatever the rate is.
        ((-5.0, 0.5), "nan_from_loss"),
        # The squares of such outputs are infinite.
        ((1e20, 1e20), "rate_too_large"),
    ],
)
def test_an_infinite_loss_is_a_jump_where_its_outputs_are_as_large(
    outputs: tuple[float, float], cause: str
) -> None:
    steps = steps_of([4.5] * 9 + [INF] + [NAN] * 20, grad_norm=[3.0] * 9 + [NAN] * 21)
    table = pd.concat([call((0.1, 0.1), (0.2, 0.4), 4.5), call(outputs, (0.0, 0.0), INF, step=9)])
    assert conclude(of(steps=steps, loss=table)).cause == cause


DOWN = np.linspace(2.0, 1.2, 300)


@pytest.mark.parametrize(
    ("losses", "norms", "cause"),
    [
        (DOWN, np.linspace(2.0, 1.6, 300), "rate_too_small"),
        # Of other examples at each update nothing is known of the next.
        (DOWN + 0.01 * (np.arange(300) % 2), np.linspace(2.0, 1.6, 300), None),
        # The gradient is nearly gone: it has arrived.
        (2.0 - 0.8 * (1 - 0.97 ** np.arange(300)), 2.0 * 0.995 ** np.arange(300), "unknown"),
        # Clipping makes it the same at every step.
        (DOWN, np.full(300, 1.0), None),
        # It learned.
        (np.linspace(2.0, 0.5, 300), np.linspace(2.0, 1.6, 300), None),
    ],
)
def test_steps_are_short_where_none_changes_the_gradient(
    losses: Any, norms: Any, cause: str | None
) -> None:
    assert of_course(losses, norms).cause == cause


@pytest.mark.parametrize(
    ("losses", "norms", "cause"),
    [
        # A weight that begins near 0 is replaced by any update.
        (DOWN, np.linspace(2.0, 1.6, 300), "rate_too_small"),
        # The first update takes most of the loss and of the gradient with it.
        (np.append(9.0, DOWN[1:]), np.append(90.0, np.linspace(2.0, 1.6, 299)), "rate_too_large"),
    ],
)
def test_an_update_as_large_as_a_weight_destroys_nothing_where_the_loss_follows(
    losses: Any, norms: Any, cause: str
) -> None:
    assert of_course(losses, norms, update_ratio=1.3).cause == cause


@pytest.mark.parametrize(
    ("eps", "last", "cause"),
    [
        # Above the largest entry of all gradients, which is 0.01, in a network that did not learn.
        (0.05, 2.2, "optimizer_epsilon"),
        (0.005, 2.2, None),
        (0.05, 0.5, None),
    ],
)
def test_an_epsilon_that_was_set_above_all_gradients_decides_the_steps(
    eps: float, last: float, cause: str | None
) -> None:
    steps = steps_of(np.linspace(2.3, last, 120) + 0.01 * (np.arange(120) % 2), grad_norm=1.0)
    evidence = of(2.303, {"optimizer.eps": eps}, steps=steps, layers=layers(update_ratio=1e-3))
    assert conclude(evidence).cause == cause


@pytest.mark.parametrize(
    ("shapes", "value", "expected"),
    [
        # The loss drops the first token of each text itself.
        (("64x11x7", "64x12"), 1.95, math.log(7)),
        (("64x7x11", "64x12"), 1.95, math.log(7)),
        (("64x7x11", "64x11"), 1.95, math.log(7)),
        (("64x11x7", "64x11"), 1.95, math.log(7)),
    ],
)
def test_the_axis_of_classes_is_the_one_that_labels_lack(
    shapes: tuple[str, str], value: float, expected: float
) -> None:
    table = call((0.0, 0.1), (3.0, 2.0), value, shapes=shapes, name="mine")
    table.loc[1, "dtype"] = "int64"
    assert constant_loss(of(loss=table)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("last", "health", "words"),
    [
        (0.07, "healthy", "It learned: the training loss went from 2.30"),
        (1.6, "healthy", "It learned little: the training loss went from 2.30"),
        (2.2, "undecided", "It learned little: the training loss went from 2.30"),
        (2.3, "sick", "It did not learn: the training loss was 2.30"),
        (2.6, "sick", "It did not learn, as far as it went: the training loss went from 2.30"),
    ],
)
def test_what_is_said_of_a_loops_loss_agrees_with_its_health(
    last: float, health: str, words: str
) -> None:
    steps = steps_of([2.3] * 30 + [last] * 90, grad_norm=1.0)
    loss = call((0.0, 0.1), (4.5, 2.9), 2.3, shapes=("64x10", "64"), name="CrossEntropyLoss")
    loss.loc[1, "dtype"] = "int64"
    diagnosis = conclude(of(2.303, steps=steps, loss=loss))
    assert diagnosis.health == health
    assert words in diagnosis.sentence


def test_a_loops_loss_that_still_falls_has_not_ended() -> None:
    diagnosis = conclude(of(1.0, steps=steps_of(DOWN, grad_norm=1.0)))
    assert diagnosis.health == "undecided"
    assert "It has not learned yet, and the loss still falls" in diagnosis.sentence


def test_a_loop_that_lost_what_it_learned_is_not_said_to_have_learned_nothing() -> None:
    losses = [2.3] * 30 + [0.5] * 60 + [2.3] * 60
    diagnosis = conclude(of(2.303, steps=steps_of(losses, grad_norm=1.0)))
    assert diagnosis.health == "sick"
    assert "It learned and lost it" in diagnosis.sentence
    assert diagnosis.sentence.count("It learned") == 1
    assert "not learn" not in diagnosis.sentence


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"optimizer.initial_lr": 0.1}, "scheduler.step()"), ({}, "scheduler.step(val_loss)")],
)
def test_only_a_schedule_that_reads_a_loss_is_given_one(
    settings: dict[str, Any], code: str
) -> None:
    rates = [0.1] * 40 + [1e-3] * 80
    steps = steps_of([2.3] * 40 + [1.8] * 80, grad_norm=1.0, lr=rates)
    found = CAUSE_RULES["rate_too_small"](of(2.303, settings, steps=steps))
    assert found is not None
    assert str(found.remedies[0].code).startswith(f"{code}  #")
