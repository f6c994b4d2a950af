"""What tells a rate that is too small or too large from a loss that is at fault, on tables.

Holds: diagnosis/rules/updates.py, diagnosis/outcome.py
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import layers_of, steps_of

from vgexp.diagnosis import Diagnosis, Evidence, conclude
from vgexp.diagnosis.evidence import evidence_of_tables
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


def of(guess: float | None = None, **tables: Any) -> Evidence:
    ending = None if guess is None else {"constant_loss": guess}
    known = {"layers": layers(), **tables}
    return evidence_of_tables(known, dtype="float32", num_examples=64, ending=ending)


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
