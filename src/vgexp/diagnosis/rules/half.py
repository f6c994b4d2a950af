"""What float16 holds, and what a loop multiplies its loss by."""

from __future__ import annotations

import math

import numpy as np

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence

HALF = "float16"
LARGEST_HALF = 65504.0
SMALLEST_HALF = 2.0**-24
_NEAR = 100.0
"""What a derivative may grow by on its way back, beyond that by an output."""


def computes_in(evidence: Evidence) -> str:
    """The dtype of the passes: the weights', or float16 where autocast gives such outputs."""
    table = evidence.tables.get("loss")
    if evidence.dtype == "float32" and table is not None:
        outputs = table.loc[table["role"] == "output", "dtype"]
        if len(outputs) and outputs.eq(HALF).all():
            return HALF
    return str(evidence.dtype)


def weight_of_loss(evidence: Evidence, step: int) -> float | None:
    """What a backward pass begins with in the loss of a step: a loss scale, by hand or by a scaler,
    times the loss's weight; None where it was not described."""
    table = evidence.tables.get("loss")
    if table is None:
        return None
    rows = table[(table["step"] == step) & (table["role"] == "loss")]
    weights = values_of(rows, "pass_weight")
    weights = weights[~np.isnan(weights)]
    return abs(float(weights[0])) if weights.size == 1 else None


def is_scaled_beyond(evidence: Evidence, step: int) -> float | None:
    """The factor on the loss of a step, where in float16 an example's share of it is near the
    largest number or beyond."""
    weight = weight_of_loss(evidence, step)
    if weight is None or computes_in(evidence) != HALF:
        return None
    share = weight / max(1, evidence.num_examples or 1)
    return weight if math.isinf(weight) or share > LARGEST_HALF / _NEAR else None
