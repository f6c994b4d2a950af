"""Numbers the weights of a stranger's model by the order in which its forward pass used them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vgexp.probe.plan import Plan


def number_layers(
    plan: Plan,
    calls: Sequence[tuple[tuple[int, ...], object]],
    outputs: Sequence[tuple[Tensor, int]],
    model_output: Tensor | None,
) -> None:
    """Sets `layer` and the read-out's `kind`, and puts the rows' numbers in calling order.

    Modules called one after another with the very same input stand side by side (query, key and
    value; gate and value) and share a number. Weights that no call used have no number; where no
    call was seen at all (a compiled model), the order of registration counts.
    """
    layer, last_input = 0, None
    for rows, given in calls:
        fresh = [row for row in rows if plan.rows[row].layer is None]
        if not fresh:
            continue
        if layer == 0 or given is None or given is not last_input:
            layer += 1
        last_input = given
        for row in fresh:
            plan.rows[row].layer = layer
    if not calls:
        for layer, row_object in enumerate(plan.rows, start=1):
            row_object.layer = layer
    for z, row in outputs:
        if model_output is not None and z is model_output and plan.rows[row].kind == "linear":
            plan.rows[row].kind = "readout"
