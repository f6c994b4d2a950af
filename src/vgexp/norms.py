"""Normalisations of a perceptron's vector of features. Axes: B examples, W features.

Each starts as the plain normalisation: scale 1 and, where it has one, shift 0; eps is 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from vgexp.errors import QuestionError
from vgexp.registry import Registry

EPS = 1e-5


class NormConfig(Protocol):
    """What a normalisation reads of a model's configuration."""

    norm_groups: int


Norm = Callable[[int, NormConfig], nn.Module | None]
"""Builds the module for [B, W], given W and the configuration; None where there is none."""


def _none(_width: int, _config: NormConfig) -> None:
    """No normalisation."""


def _batch(width: int, _config: NormConfig) -> nn.Module:
    """Each feature over the batch (Ioffe & Szegedy 2015); needs two examples."""
    return nn.BatchNorm1d(width, eps=EPS)


def _layer(width: int, _config: NormConfig) -> nn.Module:
    """Each example over its features (Ba 2016)."""
    return nn.LayerNorm(width, eps=EPS)


def _instance(_width: int, _config: NormConfig) -> nn.Module:
    """Each example and channel over its positions (Ulyanov 2016); not for a perceptron."""
    allowed = ", ".join(name for name in NORMS if NORMS[name] is not _instance)
    raise QuestionError(
        "model.norm is 'instance' on a perceptron\n"
        "reason: a channel has one value, and normalising it over no positions gives 0\n"
        f"allowed: {allowed}\nnearest: layer"
    )


def _group(width: int, config: NormConfig) -> nn.Module:
    """Each example over groups of its features (Wu & He 2018)."""
    asked, allowed = config.norm_groups, _group_counts(width)
    if asked not in allowed:
        nearest = sorted(sorted(allowed, key=lambda count: abs(count - asked))[:3])
        raise QuestionError(
            f"model.norm_groups is {asked} and model.width is {width}\n"
            "allowed: divisors of the width, at least two features a group"
            " (one alone, normalised, is 0)\n"
            f"nearest: {', '.join(map(str, nearest)) or '(none)'}"
        )
    return nn.GroupNorm(asked, width, eps=EPS)


def _rms(width: int, _config: NormConfig) -> nn.Module:
    """Each example divided by the rms of its features (Zhang & Sennrich 2019)."""
    return nn.RMSNorm(width, eps=EPS)


def _group_counts(width: int) -> list[int]:
    return [count for count in range(1, width // 2 + 1) if width % count == 0]


NORMS: Registry[Norm] = Registry(
    "norm",
    {
        "none": _none,
        "batch": _batch,
        "layer": _layer,
        "instance": _instance,
        "group": _group,
        "rms": _rms,
    },
)
"""Name -> builder."""
