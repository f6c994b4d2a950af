"""Checks the settings of a probe that need no model, so that a callback is refused when made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.amp import GradScaler

from vgexp.errors import QuestionError, impossible, unknown
from vgexp.probe.cadence import Cadence
from vgexp.probe.own_metrics import OwnMetrics

LOSS_REDUCTIONS = ("mean", "sum")
_OBJECTS = ("self", "model", "optimizer")


def defaults_of(probe: Callable[..., Any]) -> dict[str, Any]:
    """The settings that a probe's `__init__` names, with their defaults."""
    arguments = inspect.signature(probe).parameters
    named = {name: each for name, each in arguments.items() if name not in _OBJECTS}
    return {n: each.default for n, each in named.items() if each.kind is not each.VAR_KEYWORD}


def require_settings(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuses settings that a probe would not take.

    Args:
        defaults: of all settings that there are.

    Raises:
        QuestionError: a name is unknown, or a value impossible for any model.
    """
    require_names(settings, defaults)
    given = {**defaults, **settings}
    require_layers(given["layers"])
    require_reduction(given["loss_reduction"])
    require_scaler(given["scaler"])
    Cadence(*(given[name] for name in ("every", "activations_every", "histograms_every")))
    OwnMetrics(given["metrics"], lambda *_: None)


def require_names(settings: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuses names of settings that there are not.

    Raises:
        QuestionError: the first of them, with the nearest that is allowed.
    """
    allowed = list(allowed)
    for name in settings:
        if name not in allowed:
            raise unknown("setting of Probe", name, allowed)


def require_layers(layers: object) -> None:
    """Refuses what is no regular expression."""
    if layers is not None and not isinstance(layers, str):
        raise impossible("layers", layers, "a regular expression as text, or None")
    try:
        re.compile(layers or "")
    except re.error as error:
        raise QuestionError(
            f"probe.layers is {layers!r}\nallowed: a regular expression ({error})"
        ) from None


def require_reduction(loss_reduction: object) -> None:
    """Refuses what a loss is not over the examples."""
    if loss_reduction not in LOSS_REDUCTIONS:
        raise unknown("loss_reduction", loss_reduction, LOSS_REDUCTIONS)


def require_scaler(scaler: object) -> None:
    """Refuses what is no scaler."""
    if scaler is not None and not isinstance(scaler, GradScaler):
        raise QuestionError(
            f"Probe: scaler is of type {type(scaler).__name__}\n"
            "allowed: a torch.amp.GradScaler, or None where the loss is not scaled"
        )
