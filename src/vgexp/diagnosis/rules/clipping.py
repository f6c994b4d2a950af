"""Rules about clipping."""

from __future__ import annotations

import numpy as np

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import column_of
from vgexp.diagnosis.rules.updates import UNMOVED, WHOLE_WEIGHT, total_change
from vgexp.diagnosis.signal import SMALLEST_NORMAL

_MOSTLY = 0.9
"""Share of updates that counts as nearly every one."""
_THROTTLED = 0.05
"""Share of its size that clipping leaves of a gradient, below which it is a smaller rate."""
_SAME = 1e-6
"""Relative difference of float32 numbers that are the same but for rounding."""
_ENOUGH_STEPS = 25
"""Updates from which on a share of them says what is usual."""


@cause_rule(
    "clip_throttles",
    "steps.csv",
    limit=_THROTTLED,
    source="Pascanu et al. 2013",
    reason="clipping is for rare, large gradients; where it takes nine of ten updates down"
    " to a twentieth it is a smaller learning rate by another name",
    least_steps=_ENOUGH_STEPS,
)
def clip_throttles(evidence: Evidence) -> Finding | None:
    """Whether clipping makes nearly every gradient many times smaller.

    Of a loop that clips before its step what is left of the gradients as they came tells, and where
    they were not seen then, a norm that is the same at every step, or a largest entry that several
    weights share, which show the threshold itself.
    """
    before, after, clipped = (
        column_of(evidence, "steps", name) for name in ("grad_norm", "grad_norm_clipped", "clipped")
    )
    if before.size < _ENOUGH_STEPS or after.size != before.size:
        return None
    if (left := _left_by_loop(evidence)) is not None:
        return left
    with np.errstate(all="ignore"):
        ratios = after / before
    usable = ratios[np.isfinite(ratios)]
    if not usable.size:
        return None
    total = total_change(evidence)
    if total is not None and total < UNMOVED and (of_loop := _clipped_in_loop(evidence, before)):
        what, code = of_loop
        return Finding(
            "clip_throttles",
            f"{what}, and all updates together are {total:.2g} of a weight.",
            step=0,
            numbers={"total_update_ratio": Number(total, UNMOVED)},
            remedies=(_raise_threshold(None, code),),
        )
    share = float((usable < 1 - 1e-6).mean())
    if np.isfinite(clipped).any():
        share = float(np.nanmean(clipped))
    factor = float(np.median(usable))
    if share < _MOSTLY or factor > _THROTTLED or (total is not None and total > 1):
        return None
    return Finding(
        "clip_throttles",
        f"Clipping changes {share:.0%} of the gradients, to {factor:.2g} of their size.",
        step=0,
        numbers={"clip_fraction": Number(share, _MOSTLY), "factor": Number(factor, _THROTTLED)},
        remedies=(
            _raise_threshold(
                f"clip.threshold={float(np.nanmedian(before)):.2g}",
                f"nn.utils.clip_grad_norm_(model.parameters(), {np.nanmedian(before):.2g})",
            ),
        ),
    )


def _left_by_loop(evidence: Evidence) -> Finding | None:
    """That the loop takes the gradients of all weights down to a twentieth of what came, beside a
    loss scale that it divides out, and those of later updates are as small.

    An optimizer that divides by the size of gradients makes up for it, unless weights stay where
    they were.
    """
    wiring, steps = evidence.tables.get("wiring"), evidence.tables.get("steps")
    if wiring is None or steps is None or "gradient_left" not in wiring or not len(wiring):
        return None
    first = wiring[wiring["step"] == wiring["step"].min()]
    left = values_of(first, "gradient_left")[values_of(first, "in_optimizer") == 1]
    left = left[np.isfinite(left)]
    scale = values_of(steps[steps["step"] == first["step"].min()], "loss_scale")
    total = total_change(evidence)
    is_plain = not {"optimizer.eps", "optimizer.betas"} & {*evidence.settings}
    if not left.size or total is None or total >= (WHOLE_WEIGHT if is_plain else UNMOVED):
        return None
    largest = float(left.max()) * float(np.nan_to_num(scale, nan=1.0).max(initial=1.0))
    norms = column_of(evidence, "steps", "grad_norm")
    with np.errstate(all="ignore"):
        growth = float(np.nanmedian(norms) / norms[0]) if norms[0] > 0 else 1.0
    if not largest * max(growth, 1.0) <= _THROTTLED:
        return None
    what = "exactly 0" if largest == 0 else f"at most {largest:.2g} of what"
    return Finding(
        "clip_throttles",
        f"Between the backward pass and the update the loop makes every gradient smaller, to {what}"
        f"{'' if largest == 0 else ' came'}, and all updates together are {total:.2g} of a weight.",
        step=int(first["step"].iloc[0]),
        numbers={"gradient_left": Number(largest, _THROTTLED)},
        remedies=(_raise_threshold(None, "nn.utils.clip_grad_norm_(model.parameters(), 1.0)"),),
        is_fact=largest == 0 or None,
    )


def _raise_threshold(override: str | None, code: str) -> Remedy:
    """None of a loop that clips for itself: no key of the configuration does it there."""
    return Remedy(
        "Raise the threshold above the usual gradient.",
        "Clipping is then for outliers alone.",
        override,
        code,
        "Pascanu et al. 2013",
    )


def _is_constant(norms: np.ndarray) -> bool:
    """Whether nine of ten norms are equal to a thousandth, as no gradient's are by themselves."""
    middle = float(np.median(norms))
    return middle > 0 and float((np.abs(norms - middle) <= 1e-3 * middle).mean()) >= _MOSTLY


def _clipped_in_loop(evidence: Evidence, norms: np.ndarray) -> tuple[str, str] | None:
    """What shows that the loop clips each gradient itself, and the line that it should have."""
    if _is_constant(norms):
        return (
            f"The gradient's norm is {float(np.median(norms)):.3g} at every step, as clipping by"
            " norm makes it",
            "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
        )
    threshold = _shared_peak(evidence)
    if threshold is None:
        return None
    return (
        f"The largest entry of the gradients of most weights is {threshold:.3g} at every step, as"
        " clipping by value makes it",
        "nn.utils.clip_grad_value_(model.parameters(), 1.0)",
    )


def _shared_peak(evidence: Evidence) -> float | None:
    """The number that most weights' gradients have as their largest entry, at all measured steps.

    Gradients of two weights have no largest entry in common by themselves. Numbers that a dtype
    holds with few digits are left out.
    """
    layers = evidence.tables.get("layers")
    if layers is None or "grad_max" not in layers:
        return None
    known = layers[np.isfinite(values_of(layers, "grad_max")) & (values_of(layers, "grad_max") > 0)]
    peaks = values_of(known, "grad_max")
    if known["name"].nunique() < 2 or known["step"].nunique() < 2:
        return None
    peak = float(np.median(peaks))
    alike = np.abs(peaks - peak) <= _SAME * peak
    if evidence.dtype == "float16" and peak < SMALLEST_NORMAL["float16"]:
        return None
    is_shared = float(alike.mean()) > 0.5 and len(set(known.loc[alike, "name"])) > 1
    return peak if is_shared else None


RULES = (clip_throttles,)
