"""Phrases that rules and the cause of a verdict share: numbers, and what became of the signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN_GUESS = "the loss of a constant guess is not known, hence no verdict"


def format_factor(factor: float) -> str:
    """A factor with two digits; near 1, where many of them make a difference, with three."""
    return f"{factor:.3g}" if 0.9 <= factor <= 1.1 else f"{factor:.2g}"


def format_ratio(ratio: float) -> str:
    """A ratio in front of what it is a ratio to: `0.1 of`, `10 times`."""
    return f"{ratio:.2g} {'times' if ratio > 1 else 'of'}"


def format_loss(value: float | None) -> str:
    """A loss with three digits, zeros at the end included; `none` where there is none."""
    return "none" if value is None else f"{value:#.3g}".rstrip(".")


def compared_layers(metrics: Mapping[str, Any], suffix: str = "") -> tuple[int, int]:
    """The numbers of the layers that are compared: 1 and L, or what stands for them."""
    compared = metrics.get(f"compared{suffix}")
    return (1, metrics[f"num_layers{suffix}"]) if compared is None else (compared[0], compared[1])


def describe_signal(metrics: Mapping[str, Any], suffix: str = "") -> str:
    """What layer 1 gets of the backward signal, without a full stop.

    Args:
        suffix: `_last` for the last measured step.
    """
    attenuation = metrics.get(f"attenuation{suffix}")
    first_layer, last_layer = compared_layers(metrics, suffix)
    factor = metrics.get(f"backward_factor_per_layer{suffix}")
    if reason := metrics.get(f"no_path{suffix}"):
        return str(reason)
    if attenuation is None:
        return _describe_undefined(metrics, suffix)
    if attenuation == 0:
        return f"layer {first_layer} gets exactly nothing"
    if metrics[f"num_layers{suffix}"] == 1:
        return "there is one hidden layer, so nothing can be lost between layers"
    silent = _describe_silent(first_layer, last_layer, metrics[f"num_layers{suffix}"])
    if first_layer == last_layer:
        return f"layer {first_layer} alone has a signal{silent}"
    what = f"layer {first_layer} gets {format_ratio(attenuation)} what layer {last_layer} gets"
    what += silent
    # Not an average: where single layers stand out, the factor's power is not the attenuation.
    return what if factor is None else f"{what}, a fitted factor of {format_factor(factor)} a layer"


def _describe_silent(first: int, last: int, num_layers: int) -> str:
    """Which layers before and after those that are compared have no signal."""
    ranges = [(1, first - 1), (last + 1, num_layers)]
    words = [f"{a}" if a == b else f"{a} to {b}" for a, b in ranges if a <= b]
    if not words:
        return ""
    is_one = words[0].isdigit() and len(words) == 1
    return f" (layer{'' if is_one else 's'} {' and '.join(words)} ha{'s' if is_one else 've'} none)"


def _describe_undefined(metrics: Mapping[str, Any], suffix: str) -> str:
    """Why there is no attenuation."""
    last_layer = metrics[f"num_layers{suffix}"]
    if metrics[f"signal{suffix}"] == "exploding":
        return "layer 1 gets a signal beyond the range of the numbers"
    if metrics.get(f"unmeasured_ends{suffix}"):
        return _describe_unmeasured(metrics, suffix)
    if not last_layer:
        return "no hidden layer has weights that were measured"
    if last_layer == 1:
        return "no finite signal was measured in the one hidden layer"
    first_layer, last_layer = compared_layers(metrics, suffix)
    return (
        f"layer {first_layer} and layer {last_layer} cannot be compared"
        " (no value, zero or not finite)"
    )


def _describe_unmeasured(metrics: Mapping[str, Any], suffix: str) -> str:
    missing = metrics[f"unmeasured_ends{suffix}"]
    factor = metrics.get(f"backward_factor_per_layer{suffix}")
    others = {1, metrics[f"num_layers{suffix}"]}.difference(missing)
    words = " and ".join(f"layer {end}" for end in missing)
    words += " were not measured" if len(missing) > 1 else " was not measured"
    if others:
        words += f" and cannot be compared with layer {others.pop()}"
    if factor is not None:
        words += f"; the fitted factor of those measured is {format_factor(factor)} a layer"
    return words


_MOST_NAMED = 4


def name_layers(names: Sequence[str]) -> str:
    """Names of layers, at most four and how many more."""
    more = len(names) - _MOST_NAMED
    shown = list(names) if more <= 1 else [*names[:_MOST_NAMED], f"{more} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
