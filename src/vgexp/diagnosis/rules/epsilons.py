"""The epsilon of the optimizer."""

from __future__ import annotations

import math

import numpy as np

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import has_learned_little
from vgexp.diagnosis.rules.flat_losses import saturated_loss
from vgexp.diagnosis.rules.updates import UNMOVED, WHOLE_WEIGHT, total_change

_SMALLEST_HALF = 2.0**-24
_USUAL_EPSILON = 1e-8


@cause_rule(
    "optimizer_epsilon",
    "settings",
    source="Kingma & Ba 2015",
    certain=True,
    reason="Adam divides by sqrt(v) + eps: an eps that the dtype rounds to 0 divides by 0"
    " where a squared gradient underflows; one above the gradients decides the step",
)
def optimizer_epsilon(evidence: Evidence) -> Finding | None:
    """Whether epsilon is 0 in the weights' dtype, or larger than all gradients.

    One that somebody set above the largest entry of all gradients takes more than half of each
    step, and the size that Adam gives to steps with it: a sickness where the network did not learn.
    """
    eps = evidence.settings.get("optimizer.eps")
    layers = evidence.tables.get("layers", evidence.tables.get("parameters"))
    if not isinstance(eps, int | float) or layers is None:
        return None
    is_lost = evidence.dtype == "float16" and eps < _SMALLEST_HALF / 2
    first = layers[layers["step"] == layers["step"].min()]
    gradients, moved = values_of(first, "grad_norm"), values_of(first, "update_ratio")
    if is_lost and np.isfinite(gradients).any() and not np.isfinite(moved).any():
        sentence = (
            f"eps = {eps:.2g} is 0 in float16, and squared gradients underflow: the optimizer's"
            " first update divides 0 by 0."
        )
        step, limit, better = int(first["step"].iloc[0]), _SMALLEST_HALF, 1e-4
        is_fact = True
    else:
        largest = values_of(layers, "grad_max")
        total = total_change(evidence)
        usable = largest[np.isfinite(largest)]
        is_set = eps > _USUAL_EPSILON
        if not usable.size or not 0 < usable.max() <= eps / (1 if is_set else 10):
            return None
        most = WHOLE_WEIGHT if is_set else UNMOVED
        if is_set and has_learned_little(evidence):
            most = math.inf  # it moved, and for each weight by as much as its gradient is large
        if total is None or total >= most or _is_flat(evidence):
            return None  # of a loss that is flat any epsilon is larger than the gradients
        if not usable.max() or (evidence.is_check and eps <= _USUAL_EPSILON):
            return None  # of a whole run that is so; in one update the gradients are too small
        sentence = f"eps = {eps:.2g} is larger than every gradient ({usable.max():.2g} at most)."
        is_fact = total < UNMOVED and usable.max() <= eps / 10
        step, limit, better = evidence.first_step, float(usable.max()), 1e-8
    is_half = evidence.dtype in ("float16", "bfloat16")
    wide = "; or keep weights in float32 under autocast" if is_half else ""
    return Finding(
        "optimizer_epsilon",
        sentence,
        step=step,
        numbers={"eps": Number(float(eps), limit)},
        layers=(str(first["name"].iloc[0]),),
        remedies=(
            Remedy(
                f"Use eps={better:.0e}.",
                "Epsilon has to be a number of the dtype, and smaller than the gradients.",
                None,
                f"torch.optim.Adam(model.parameters(), eps={better:.0e}){wide}",
                "Kingma & Ba 2015",
            ),
        ),
        is_fact=is_fact,
    )


def _is_flat(evidence: Evidence) -> bool:
    """Whether the loss sends next to nothing back by itself."""
    return not evidence.lacks("layers.csv") and saturated_loss(evidence) is not None


RULES = (optimizer_epsilon,)
