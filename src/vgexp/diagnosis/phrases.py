"""Phrases that rules and the cause of a verdict share: numbers, and what became of the signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vgexp.diagnosis.learning import ENOUGH_STEPS

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


def why_undecided(num_steps: int) -> str:
    """Why a run of so many steps is too short to tell whether it learns, as a noun phrase."""
    if num_steps < ENOUGH_STEPS:
        return f"{num_steps} step{'' if num_steps == 1 else 's'} of at least {ENOUGH_STEPS}"
    return f"after {num_steps} steps the loss still falls"


def describe_first_not_finite(metrics: Mapping[str, Any]) -> str:
    """What made the first value that is not finite, as a sentence; empty where nobody knows."""
    maker, place = metrics.get("nonfinite_maker"), metrics.get("nonfinite_place")
    step = metrics.get("nonfinite_step")
    if maker == "data":
        return "The batch of this step is not finite."
    if maker == "initialisation":
        return f"The initialisation made {place}, which is not finite."
    if maker == "update" and step is not None:
        return (
            f"The optimizer's update at step {step - 1} made it: since then {place} is not finite."
        )
    if maker == "forward":
        where = f", in {place}" if place else ""
        return f"The forward pass made it{where}: the weights and the batch are finite."
    if maker == "loss" and place:
        return (
            "The loss made it: the network's outputs and the loss are finite, the gradient of its"
            f" {place} is not."
        )
    if maker == "loss":
        return "The loss made it: the network's outputs are finite, the loss is not."
    if maker == "backward":
        return (
            "A branch of the backward pass made it: the loss is finite, the gradient of"
            f" {place} is not."
        )
    return ""


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
_GREEK = frozenset({"phi", "chi", "delta", "sigma", "tanh"})


def name_layers(names: Sequence[str]) -> str:
    """Names of layers, at most four and how many more."""
    more = len(names) - _MOST_NAMED
    shown = list(names) if more <= 1 else [*names[:_MOST_NAMED], f"{more} more"]
    return list_words(shown)


def list_words(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def capitalise(text: str) -> str:
    """A text with a capital at its start, unless it begins with a symbol, which case changes."""
    first = text.split(" ", 1)[0].rstrip(",.:;")
    is_symbol = (len(first) == 1 and first != "a") or not first.replace("-", "").isalpha()
    is_symbol = is_symbol or first != first.lower()
    return text if is_symbol or first in _GREEK else f"{text[:1].upper()}{text[1:]}"


def place_layers(names: Sequence[str], depths: Mapping[str, int]) -> str:
    """Names of layers behind their numbers: `layer 1 (a)`, `layers 1 to 9 (a to i)`.

    Args:
        depths: name -> number; names of which one lacks it are listed without.
    """
    if any(name not in depths for name in names):
        return name_layers(names)
    if len(names) == 1:
        return f"layer {depths[names[0]]} ({names[0]})"
    numbers = [depths[name] for name in names]
    if len(names) > 2 and numbers == [*range(numbers[0], numbers[-1] + 1)]:
        return f"layers {numbers[0]} to {numbers[-1]} ({names[0]} to {names[-1]})"
    return f"layers {name_layers([*map(str, dict.fromkeys(numbers))])} ({name_layers(names)})"
