"""What tells a clip of somebody's own loop, from what is left of gradients as they came.

Holds: diagnosis/rules/clipping.py, diagnosis/rules/wiring.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import layers_of, steps_of

from vgexp.diagnosis import conclude
from vgexp.diagnosis.evidence import evidence_of_tables

ADAM = {"optimizer.eps": 1e-8, "optimizer.betas": [0.9, 0.999]}


def cause_of(
    left: float,
    ratio: float = 1e-3,
    *,
    norm: Any = 0.03,
    scale: float = 1.0,
    last: float = 2.3,
    settings: Any = None,
) -> str | None:
    """The cause of 120 updates of such length, with this share left of the first gradient."""
    usual = {"grad_norm": 0.01, "grad_max": [1e-3, 2e-3], "update_ratio": ratio, "preact_std": 1.0}
    parts = [layers_of(np.full(1, 0.5), step=step, **usual) for step in (0, 20)]
    rows = pd.concat(parts, ignore_index=True)
    wiring = pd.DataFrame(
        {"step": 0, "name": rows["name"].iloc[:2], "requires_grad": 1, "in_optimizer": 1}
    ).assign(lr=0.1, gradient_came=1, gradient_kept=0, other_optimizer=0, gradient_left=left)
    wiring = wiring.assign(updated=int(ratio > 0), gradient="finite" if np.any(norm) else "zero")
    norms = norm * (1 + 0.1 * (np.arange(120) % 7))
    steps = steps_of(np.linspace(2.3, last, 120) + 0.01 * (np.arange(120) % 2), loss_scale=scale)
    tables = {
        "layers": rows,
        "steps": steps.assign(grad_norm=norms, grad_norm_clipped=norms),
        "wiring": wiring,
    }
    ending = {"constant_loss": 2.303}
    evidence = evidence_of_tables(
        tables, dtype="float32", num_examples=64, settings=settings, ending=ending
    )
    return conclude(evidence).cause


@pytest.mark.parametrize(
    ("case", "is_told"),
    [
        ({"left": 0.001}, True),
        ({"left": 0.5}, False),
        # The loop divides by the scale of the loss.
        ({"left": 2.0**-16, "scale": 2.0**16}, False),
        ({"left": 0.001 * 2.0**-16, "scale": 2.0**16}, True),
        # Only the first gradient was as large.
        ({"left": 0.001, "norm": np.append(0.03, np.full(119, 30.0))}, False),
        # It learned, and weights moved by their own size.
        ({"left": 0.001, "last": 0.5}, False),
        ({"left": 0.001, "ratio": 0.02}, False),
        # Adam makes up for it, unless weights stay where they were.
        ({"left": 0.001, "settings": ADAM}, False),
        ({"left": 0.001, "ratio": 1e-5, "settings": ADAM}, True),
    ],
)
def test_a_loop_that_leaves_a_twentieth_of_each_gradient_throttles(
    case: dict[str, Any], is_told: bool
) -> None:
    assert (cause_of(**case) == "clip_throttles") is is_told


@pytest.mark.parametrize(
    ("left", "cause"),
    [
        # What is left was multiplied by 0; zeros that were written tell of no product.
        (0.0, "clip_throttles"),
        (np.nan, "gradient_cleared"),
    ],
)
def test_a_threshold_of_0_is_no_clearing(left: float, cause: str) -> None:
    assert cause_of(left, 0.0, norm=0.0) == cause
