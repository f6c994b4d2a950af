"""Numbers the layers of a user's model in the order in which its forward pass uses them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vgexp.probe.plan import ProbePlan

Call = tuple[list[tuple[int, ...]], object]
"""The rows of a module, one tuple a layer, and the first input of its first call."""


def number_layers(
    plan: ProbePlan,
    calls: Sequence[Call],
    outputs: Sequence[tuple[Tensor, int]],
    model_output: Tensor | None,
) -> None:
    """Sets the `layer` of rows that have none, and the read-out's `kind`.

    Args:
        calls: the calls of modules, in forward order.
        outputs: z of each row's first use in a pass, with its row.

    Modules called one after another with the very same input stand side by side (query, key and
    value; gate and value) and share a number. A weight that is first used at a later step comes
    after the one called before it. Weights that no call used have no number. Where no call was seen
    at all (a compiled model), weights are numbered in the order of registration.

    A weight that several modules share is numbered where it is used first. Its later uses have no
    number, so that numbers have no gaps.
    """
    number, last_input = 0, None
    is_first_time = all(row.layer is None for row in plan.rows)
    used: set[int] = set()
    for layers, given in calls:
        members = {row for rows in layers for row in rows}
        if members <= used:
            continue
        used |= members
        known = [plan.rows[row].layer for rows in layers for row in rows]
        if not is_first_time and None not in known:
            number, last_input = max(layer or 0 for layer in known), given
            continue
        if number == 0 or given is None or given is not last_input:
            number += 1
        last_input = given
        for offset, rows in enumerate(layers):
            for row in rows:
                if plan.rows[row].layer is None:
                    plan.rows[row].layer = number + offset
        number += len(layers) - 1
    if is_first_time and not calls:
        for number, row_object in enumerate(plan.rows, start=1):
            row_object.layer = number
    for z, row in outputs:
        if z is model_output and plan.rows[row].kind == "linear":
            plan.rows[row].kind = "readout"
