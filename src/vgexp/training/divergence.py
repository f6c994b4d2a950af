"""Names the layer at which a step became non-finite."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from vgexp.records import Rows


def layer_of_divergence(rows: Rows) -> str:
    """The first layer in forward order with non-finite z, else the last with a non-finite gradient.

    `rows` are those of `layers.csv` for the step, in forward order.
    """
    names, layers = rows.columns["name"], rows.columns["layer"]

    def bad(column: str) -> list[int]:
        values = rows.columns.get(column, [])
        return [i for i, v in enumerate(values) if v is not None and not math.isfinite(v)]

    forward = sorted({*bad("preact_mean"), *bad("preact_std")})
    if forward:
        i = forward[0]
        return f"z of layer {layers[i]} ({names[i]}) is the first that is not finite"
    backward = bad("grad_max")
    if backward:
        i = backward[-1]
        return f"the gradient of layer {layers[i]} ({names[i]}) is the last that is not finite"
    return "the loss is not finite, though every z and gradient of a weight is"


def around(step: int, batches: Sequence[Rows]) -> tuple[list[Rows], list[Rows]]:
    """The rows before a step, and those after it."""
    before = [rows[: bisect_left(rows.columns["step"], step)] for rows in batches]
    after = [rows[bisect_right(rows.columns["step"], step) :] for rows in batches]
    return [rows for rows in before if len(rows)], [rows for rows in after if len(rows)]


def last_step(rows: Rows) -> Rows:
    """Those of the last step alone."""
    steps = rows.columns["step"]
    return rows[bisect_left(steps, steps[-1]) :]
