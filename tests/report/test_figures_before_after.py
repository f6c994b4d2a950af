"""The picture of a cure: gradient by layer and loss, before and after.

Holds: report/figures/before_after.py
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vgexp.report.figures import Beside, before_after

STEPS = 40


def run_of(first: float, last_loss: float, seed: int = 0) -> Beside:
    """A run of three layers: the gradient of the first, and where the loss goes from 2 to."""
    norms = np.array([first, 0.9, 1.0])
    layers = pd.DataFrame(
        {
            "step": np.repeat([0, 20], 3),
            "layer": [1, 2, 3] * 2,
            "name": ["a", "b", "c"] * 2,
            "kind": ["linear", "linear", "readout"] * 2,
            "grad_norm": [*norms, *(norms * 7)],
        }
    )
    losses = np.geomspace(2.0, last_loss, STEPS) if math.isfinite(last_loss) else np.nan
    steps = pd.DataFrame({"step": range(STEPS), "loss": losses})
    return Beside(str(seed), layers, steps, constant_loss=2.3)


def test_each_seed_is_a_line_of_its_own_in_both_panels() -> None:
    before, after = [run_of(1e-6, 1.9), run_of(1e-7, 2.0, 1)], [run_of(0.5, 0.1)]
    figure = before_after(before, after, "After: model.skip=residual")
    gradient, loss = figure.axes[:2]
    drawn = [line for line in gradient.get_lines() if len(line.get_ydata()) == 3]
    assert [float(line.get_ydata()[0]) for line in drawn] == [1e-6, 1e-7, 0.5]
    assert gradient.get_yscale() == "log"
    assert figure.get_suptitle() == "After: model.skip=residual"
    names = [text.get_text() for text in loss.get_legend().get_texts()]
    assert names == ["before", "after", "constant guess 2.30"]
    curves = [line for line in loss.get_lines() if len(line.get_xdata()) > 2]
    assert len(curves) == 3


def test_a_run_without_a_finite_loss_has_no_curve_and_no_error() -> None:
    figure = before_after([run_of(0.0, math.nan)], [run_of(1.0, 0.001)], "After: x")
    _, loss = figure.axes[:2]
    assert next(line.get_label() for line in loss.get_lines()) == "after"
    assert loss.get_yscale() == "log"  # from 2 to 0.001
