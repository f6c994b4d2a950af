"""What untrained networks do to the gradient, measured and predicted, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vgexp.diagnosis.directions import direction_words
from vgexp.diagnosis.words import digits, fitted_words, gradient_words, hidden_words, time_words

_ROUNDING = 1e-3
"""Relative difference below which two figures are called equal."""
_ALIKE = 0.02
"""The same of factors of which one stands for the other."""
_IN_TIME = "predicted_backward_factor_per_time_step"


def start_sentence(summary: Mapping[str, Any]) -> str:
    """What the gradient of untrained networks does, from a summary of `summarise_start`."""
    figures = {**summary, "unmeasured_ends": summary.get("unmeasured_ends", [])}
    many = summary.get("num_seeds", 1)
    when = " at initialisation" + (f" (geometric means over {many} seeds)" if many > 1 else "")
    parts = [gradient_words(figures, when), hidden_words(figures), *_theory_words(summary)]
    parts += [
        fitted_words(summary, " for the first seed" if many > 1 else ""),
        time_words(summary),
        _time_theory_words(summary),
        *_of_first_seed(direction_words(summary), many),
    ]
    return " ".join(part for part in parts if part)


def _of_first_seed(words: list[str], num_seeds: int) -> list[str]:
    """Directions are measured on one."""
    return ["On the first seed:", *words] if words and num_seeds > 1 else words


def _theory_words(summary: Mapping[str, Any]) -> list[str]:
    """What theory says of the factor, where it comes from, and how deep it carries."""
    factor, note = summary.get("predicted_backward_factor_per_layer"), summary.get("theory")
    if factor is None:
        nothing = summary.get(_IN_TIME) is None
        return [f"No prediction: {note}."] if note and nothing else []
    total = summary.get("predicted_attenuation")
    in_all = "" if total is None else f"{total:.2g} in all, "
    caveat = f" ({note})" if note else ""
    return [
        f"Theory says {in_all}{digits(factor)} a layer{caveat}.",
        "" if summary.get(_IN_TIME) is not None else _why(summary, factor),
        _depth_words(summary, factor),
        _phase_words(summary),
    ]


def _why(summary: Mapping[str, Any], factor: float, each: str = "") -> str:
    """The middle layer's mean-square factor, taken apart; of a recurrent net `each` step's."""
    branch, carried = summary.get("branch_factor"), summary.get("carried_factor")
    slope, gain = summary.get("mean_slope"), summary.get("weight_gain")
    if branch is None or carried is None or slope is None or gain is None:
        return ""
    root = math.sqrt(branch + carried)
    words = f"At the middle layer phi'^2 is {slope:.2g} on average, times sigma_w^2 = {gain:.2g}"
    if abs(branch - slope * gain) > _ROUNDING * branch:
        other = digits(branch / (slope * gain))
        words += f" and {other} of dropout, norm, gate or scale"
    if carried:
        words += f": the branch passes back {digits(branch)} of the mean square, the skip"
        words += f" {digits(carried)}; the root of the sum, {digits(root)},"
    else:
        words += f": the root of it, {digits(root)},"
    there = summary.get("middle_factor") or root
    is_less = abs(there / root - 1) > _ALIKE
    where = " there" if abs(factor / root - 1) > _ALIKE else ""
    words += f" {'would be' if is_less else 'is'} the factor of delta_rms{each}{where}"
    return words + (f"; borders or few units make it {digits(there)}." if is_less else ".")


def _depth_words(summary: Mapping[str, Any], factor: float) -> str:
    depth = summary.get("predicted_signal_depth")
    if depth is None:
        return ""
    if factor < 1:
        return f"1e-3 of the signal is left after {depth:.3g} layers."
    return f"After {depth:.3g} layers it is 1e3 times as large."


def _phase_words(summary: Mapping[str, Any]) -> str:
    """Where deep layers end, and what the critical gain would do at this depth."""
    chi, scale = summary.get("chi"), summary.get("depth_scale")
    gain, would_be = summary.get("critical_gain"), summary.get("critical_attenuation")
    words = []
    if chi is not None and abs(chi - 1) < _ROUNDING:
        words.append("Deep layers end at chi = 1, between vanishing and exploding.")
    elif chi is not None and scale is not None:
        verb = "falls" if chi < 1 else "grows"
        words.append(
            f"Deep layers end at chi = {chi:.3g}: the mean square {verb} by e in"
            f" {abs(scale):.3g} layers."
        )
    if gain is not None and would_be is not None:
        words.append(
            f"model.gain={gain:.3g} makes chi 1 (signal.critical=true): at this depth layer 1 would"
            f" get {would_be:.2g} of what the last gets."
        )
    return " ".join(words)


def _time_theory_words(summary: Mapping[str, Any]) -> str:
    """What theory says of the factor per step in time."""
    factor, note = summary.get(_IN_TIME), summary.get("theory")
    if factor is None:
        return ""
    is_said = summary.get("predicted_backward_factor_per_layer") is not None
    caveat = f" ({note})" if note and not is_said else ""
    return f"Theory says {digits(factor)} a step{caveat}. {_why(summary, factor, ' a step')}"
