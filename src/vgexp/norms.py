"""Normalisations. Axes: B examples, C channels (a perceptron's features), P positions (one axis or
more, none for a perceptron).

Each starts as the plain normalisation: scale 1 and, where it has one, shift 0, one a channel; eps
is 1e-5, added to the variance or the mean square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vgexp import user_code
from vgexp.config.ranges import divisors
from vgexp.errors import QuestionError
from vgexp.registry import Registry

EPS = 1e-5


class NormConfig(Protocol):
    """The keys of a model's configuration that a normalisation reads."""

    norm_groups: int


class Norm(Protocol):
    """A named normalisation."""

    def __call__(
        self, num_channels: int, config: NormConfig, num_position_axes: int = 0, /
    ) -> nn.Module | None:
        """Makes the module for [B, C, P..]; None where nothing is normalised.

        Raises:
            QuestionError: channels and positions that it cannot normalise.
        """
        ...


@dataclass(frozen=True)
class Statistics:
    """The entries and the statistics that a perceptron's normalisation uses."""

    num_entries: int | None
    """Number of entries that are normalised together; None: each feature over the whole batch."""
    centred: bool
    """Whether their mean is subtracted before they are divided by their root mean square."""


@dataclass(frozen=True)
class NormEntry:
    """A named normalisation, and what models and theory ask about it."""

    build: Norm
    statistics: Callable[[int, NormConfig], Statistics] | None = None
    """Gives the statistics for a width; None: there are none, or they are not known."""
    of_units: Callable[[int], nn.Module | None] | None = None
    """Makes the module that normalises each vector of [.., W] over its W units; None: there is no
    such module."""
    is_per_channel: Callable[[int, NormConfig], bool] = lambda _num_channels, _config: False
    """Whether it normalises each channel of an image alone, over its positions."""
    is_identity: bool = False
    """Whether nothing is normalised."""
    is_known: bool = True
    """Whether it is one of this registry's, and not a user's."""

    @property
    def summary(self) -> str:
        """The line that describes the norm in `vgexp list norms`."""
        return (self.build.__doc__ or "").strip().split("\n\n")[0]

    def __call__(
        self, num_channels: int, config: NormConfig, num_position_axes: int = 0, /
    ) -> nn.Module | None:
        """Makes the module; see `Norm`."""
        return self.build(num_channels, config, num_position_axes)


class ChannelRms(nn.Module):
    """Divides x by the rms of an example's channels and positions, and scales each channel.

    x is [B, C, P..]. `nn.RMSNorm` has a scale for each entry that it normalises over, which would
    be one a position too.
    """

    def __init__(self, num_channels: int, num_position_axes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self._axes = tuple(range(1, num_position_axes + 2))
        self._shape = (num_channels, *(1,) * num_position_axes)

    def forward(self, x_BCP: Tensor) -> Tensor:
        """Returns the normalised x."""
        mean_square = x_BCP.square().mean(self._axes, keepdim=True)
        return x_BCP * torch.rsqrt(mean_square + EPS) * self.weight.view(self._shape)


def _none(_num_channels: int, _config: NormConfig, _num_position_axes: int = 0, /) -> None:
    """No normalisation."""


def _batch(num_channels: int, _config: NormConfig, num_position_axes: int = 0, /) -> nn.Module:
    """Each channel over batch and positions (Ioffe & Szegedy 2015); needs two examples."""
    return (nn.BatchNorm2d if num_position_axes == 2 else nn.BatchNorm1d)(num_channels, eps=EPS)


def _layer(num_channels: int, _config: NormConfig, num_position_axes: int = 0, /) -> nn.Module:
    """Each example over its channels (and positions, of images) (Ba 2016)."""
    return nn.GroupNorm(1, num_channels, eps=EPS) if num_position_axes else _layer_of(num_channels)


def _layer_of(num_units: int) -> nn.Module:
    return nn.LayerNorm(num_units, eps=EPS)


def _instance(num_channels: int, _config: NormConfig, num_position_axes: int = 0, /) -> nn.Module:
    """Each example and channel over its positions (Ulyanov 2016); not for a perceptron."""
    if num_position_axes:
        return nn.GroupNorm(num_channels, num_channels, eps=EPS)
    allowed = ", ".join(name for name in NORMS if NORMS[name].build is not _instance)
    raise QuestionError(
        "model.norm is 'instance' on a perceptron\n"
        "reason: a channel has one value, and normalising it over no positions gives 0\n"
        f"allowed: {allowed}\nnearest: layer"
    )


def _group(num_channels: int, config: NormConfig, num_position_axes: int = 0, /) -> nn.Module:
    """Each example over groups of its channels (and positions, of images) (Wu & He 2018)."""
    asked = config.norm_groups
    smallest = 1 if num_position_axes else 2
    if num_channels % asked or num_channels // asked < smallest:
        allowed = divisors(num_channels, num_channels // smallest)
        nearest = sorted(sorted(allowed, key=lambda count: abs(count - asked))[:3])
        norms, alone = (
            (f"a layer has {num_channels} channels", "")
            if num_position_axes
            else (
                f"model.width is {num_channels}",
                ", at least two features a group (one alone, normalised, is 0)",
            )
        )
        raise QuestionError(
            f"model.norm_groups is {asked} and {norms}\n"
            f"allowed: divisors of the {'channels' if num_position_axes else 'width'}{alone}\n"
            f"nearest: {', '.join(map(str, nearest)) or '(none)'}"
        )
    return nn.GroupNorm(asked, num_channels, eps=EPS)


def _rms(num_channels: int, _config: NormConfig, num_position_axes: int = 0, /) -> nn.Module:
    """Each example divided by the rms of its channels (and positions) (Zhang & Sennrich 2019)."""
    if num_position_axes:
        return ChannelRms(num_channels, num_position_axes)
    return _rms_of(num_channels)


def _rms_of(num_units: int) -> nn.Module:
    return RmsNorm(num_units, eps=EPS)


class RmsNorm(nn.RMSNorm):
    """Computes in the weight's dtype, whatever the input's; torch's class warns if they differ."""

    def forward(self, x_BW: Tensor) -> Tensor:
        if x_BW.dtype == self.weight.dtype:
            return super().forward(x_BW)
        return super().forward(x_BW.to(self.weight.dtype)).to(x_BW.dtype)


def _from_user_code(path: str) -> NormEntry:
    """Makes an entry of the user's own norm, which reads [B, C, P..] with any positions."""
    make = user_code.norm(path)

    def build(num_channels: int, _config: NormConfig, _num_position_axes: int = 0, /) -> nn.Module:
        return make(num_channels)

    build.__doc__ = path
    return NormEntry(build, is_known=False)


NORMS: Registry[NormEntry] = Registry(
    "norm",
    {
        "none": NormEntry(_none, of_units=lambda _num_units: None, is_identity=True),
        "batch": NormEntry(_batch, lambda _width, _config: Statistics(None, centred=True)),
        "layer": NormEntry(
            _layer, lambda width, _config: Statistics(width, centred=True), of_units=_layer_of
        ),
        "instance": NormEntry(_instance, is_per_channel=lambda _num_channels, _config: True),
        "group": NormEntry(
            _group,
            lambda width, config: Statistics(width // config.norm_groups, centred=True),
            is_per_channel=lambda num_channels, config: num_channels == config.norm_groups,
        ),
        "rms": NormEntry(
            _rms, lambda width, _config: Statistics(width, centred=False), of_units=_rms_of
        ),
    },
    _from_user_code,
)
"""Name -> normalisation."""
