"""What float16 loses although no number that was measured is near its ends, on tables.

Holds: diagnosis/rules/dtypes.py
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from layer_tables import layers_of, steps_of

from vgexp.diagnosis import Diagnosis, conclude
from vgexp.diagnosis.evidence import evidence_of_tables
from vgexp.quantities import TABLES


def of_half(
    value: float,
    shape: str,
    *,
    scale: float = 1.0,
    output: tuple[float, float] = (0.0, 0.1),
    dtype: str = "float16",
) -> Diagnosis:
    """That of a squared error of this value at each of 120 steps, which sends nothing back."""
    frame = pd.DataFrame({column.name: math.nan for column in TABLES["loss"]}, range(3)).astype(
        dict.fromkeys(("function", "name", "role", "shape", "dtype", "made_by"), object)
    )
    frame["step"], frame["function"], frame["not_finite"] = 0, "mine", 0.0
    frame["name"], frame["role"] = ["o", "y", "result"], ["output", "target", "loss"]
    frame["shape"], frame["dtype"] = [shape, shape, "scalar"], dtype
    frame["mean"], frame["std"] = [output[0], 0.0, value], [output[1], 1.0, 0.0]
    usual = {"grad_norm": 0.0, "grad_max": 0.0, "update_ratio": 0.0, "preact_std": 1.0}
    parts = [layers_of(np.zeros(2), step=step, **usual) for step in (0, 20)]
    tables = {
        "layers": pd.concat(parts, ignore_index=True).assign(delta_rms=0.0),
        "steps": steps_of([value] * 120, grad_norm=0.0, loss_scale=scale),
        "loss": frame,
    }
    return conclude(evidence_of_tables(tables, dtype=dtype, num_examples=64))


@pytest.mark.parametrize(
    ("value", "shape", "scale", "is_told"),
    [
        # A mean over 64 examples with 64 entries each: a term is 2.4e-9.
        (1e-5, "64x64", 1.0, True),
        (1e-5, "64x64", 2.0**14, False),
        # A term of 1.6e-7 is a number of float16.
        (1e-5, "64", 1.0, False),
        (1e-7, "64", 1.0, True),
    ],
)
def test_a_term_of_the_loss_is_below_what_float16_holds(
    value: float, shape: str, scale: float, is_told: bool
) -> None:
    assert (of_half(value, shape, scale=scale).cause == "underflow") is is_told


@pytest.mark.parametrize(
    ("value", "shape", "output", "dtype", "is_told"),
    [
        (0.0, "1100x64", (0.0, 0.1), "float16", True),
        # Fewer entries, another dtype, a loss that is no 0, and outputs that are the targets.
        (0.0, "1000x64", (0.0, 0.1), "float16", False),
        (0.0, "1100x64", (0.0, 0.1), "bfloat16", False),
        (1.0, "1100x64", (0.0, 0.1), "float16", False),
        (0.0, "1100x64", (0.0, 1.0), "float16", False),
    ],
)
def test_a_count_that_float16_does_not_hold_makes_a_mean_of_0(
    value: float, shape: str, output: tuple[float, float], dtype: str, is_told: bool
) -> None:
    assert (of_half(value, shape, output=output, dtype=dtype).cause == "overflow") is is_told
