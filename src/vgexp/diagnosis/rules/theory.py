"""Rules about what theory predicts for networks at initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, rule
from vgexp.diagnosis.phrases import format_factor

_ROUNDING = 1e-3
"""Relative difference below which two metrics are called equal."""
_ALIKE = 0.02
"""Relative difference up to which one factor stands for another."""
_FACTOR = "predicted_backward_factor_per_layer"
_FACTOR_IN_TIME = "predicted_backward_factor_per_time_step"


@rule("theory")
def no_prediction(evidence: Evidence) -> Finding | None:
    """Why theory predicts no factor, neither a layer nor a step back in time."""
    metrics = evidence.metrics
    if metrics.get(_FACTOR) is not None or metrics.get(_FACTOR_IN_TIME) is not None:
        return None
    return Finding(no_prediction.id, f"No prediction: {metrics['theory']}.", step=0)


@rule(_FACTOR)
def prediction(evidence: Evidence) -> Finding | None:
    """The factor a layer that theory predicts, and what it leaves out."""
    factor, note = evidence.metrics[_FACTOR], evidence.metrics.get("theory")
    total = evidence.metrics.get("predicted_attenuation")
    in_all = "" if total is None else f"{total:.2g} in all, "
    caveat = f" ({note})" if note else ""
    sentence = f"Theory says {in_all}{format_factor(factor)} a layer{caveat}."
    return Finding(prediction.id, sentence, step=0, numbers={_FACTOR: Number(factor)})


@rule(_FACTOR, "branch_factor", "carried_factor", "mean_slope", "weight_gain")
def predicted_parts(evidence: Evidence) -> Finding | None:
    """What the predicted factor is made of at the middle layer."""
    if evidence.metrics.get(_FACTOR_IN_TIME) is not None:
        return None
    sentence = explain_factor(evidence.metrics, evidence.metrics[_FACTOR])
    return Finding(predicted_parts.id, sentence, step=0)


@rule(_FACTOR, "predicted_signal_depth")
def predicted_depth(evidence: Evidence) -> Finding | None:
    """After how many layers the predicted signal has changed by a factor of 1e3."""
    depth = evidence.metrics["predicted_signal_depth"]
    sentence = f"After {depth:.3g} layers it is 1e3 times as large."
    if evidence.metrics[_FACTOR] < 1:
        sentence = f"1e-3 of the signal is left after {depth:.3g} layers."
    numbers = {"predicted_signal_depth": Number(depth)}
    return Finding(predicted_depth.id, sentence, step=0, numbers=numbers)


@rule(_FACTOR, "chi")
def phase(evidence: Evidence) -> Finding | None:
    """Where deep layers end, and which gain would keep their signal."""
    chi, scale = evidence.metrics["chi"], evidence.metrics.get("depth_scale")
    if abs(chi - 1) < _ROUNDING:
        sentence = "Deep layers end at chi = 1, between vanishing and exploding."
    else:
        sentence = f"Deep layers end at chi = {chi:.3g}"
        if scale is not None:
            verb = "falls" if chi < 1 else "grows"
            sentence += f": the mean square {verb} by e in {abs(scale):.3g} layers"
        sentence += "."
    numbers = {"chi": Number(chi, 1.0)}
    remedies = _critical_gain(evidence.metrics)
    return Finding(phase.id, sentence, step=0, numbers=numbers, remedies=remedies)


def explain_factor(metrics: Mapping[str, Any], factor: float, each: str = "") -> str:
    """The mean-square factor of the middle layer, taken apart; empty where a part is not known.

    Args:
        factor: the predicted one, of which this layer's may differ.
        each: ` a step` where it is one of time.
    """
    branch, carried = metrics.get("branch_factor"), metrics.get("carried_factor")
    slope, gain = metrics.get("mean_slope"), metrics.get("weight_gain")
    if branch is None or carried is None or slope is None or gain is None:
        return ""
    root = math.sqrt(branch + carried)
    if not root:
        return ""
    words = f"At the middle layer phi'^2 is {slope:.2g} on average, times sigma_w^2 = {gain:.2g}"
    if abs(branch - slope * gain) > _ROUNDING * branch:
        other = format_factor(branch / (slope * gain))
        words += f" and {other} of dropout, norm, gate or scale"
    if carried:
        words += f": the branch passes back {format_factor(branch)} of the mean square, the skip"
        words += f" {format_factor(carried)}; the root of the sum, {format_factor(root)},"
    else:
        words += f": the root of it, {format_factor(root)},"
    there = metrics.get("middle_factor") or root
    is_less = abs(there / root - 1) > _ALIKE
    where = " there" if abs(factor / root - 1) > _ALIKE else ""
    words += f" {'would be' if is_less else 'is'} the factor of delta_rms{each}{where}"
    return words + (f"; borders or few units make it {format_factor(there)}." if is_less else ".")


def _critical_gain(metrics: Mapping[str, Any]) -> tuple[Remedy, ...]:
    gain, would_be = metrics.get("critical_gain"), metrics.get("critical_attenuation")
    if gain is None or would_be is None:
        return ()
    override = f"model.gain={gain:.3g}"
    return (
        Remedy(
            words=(
                f"{override} makes chi 1 (signal.critical=true): at this depth layer 1 would get"
                f" {would_be:.2g} of what the last gets."
            ),
            why="At chi = 1 the mean square of the gradient neither falls nor grows with depth.",
            override=override,
            source="Schoenholz 2017",
        ),
    )


RULES = (no_prediction, prediction, predicted_parts, predicted_depth, phase)
