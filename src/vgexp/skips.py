"""Skip connections: how a branch (of a perceptron's layer, W h + b) becomes the next z.

Axes: B examples, W units (of images: channels and their positions).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vgexp.registry import Registry
from vgexp.seeds import allocate

HIGHWAY_BIAS = -2.0


class Combine(nn.Module, ABC):
    """Computes the next z from z_BW, the branch W h + b, and the h_BW that the branch read."""

    keeps_path = True
    """Whether the next z is z plus a function of the branch alone."""

    @property
    def gates(self) -> tuple[tuple[Gate | ConvGate, nn.Sigmoid], ...]:
        """The affine map of each gate, with the sigmoid that reads it."""
        return ()

    @abstractmethod
    def forward(self, z_BW: Tensor, branch_BW: Tensor, h_BW: Tensor) -> Tensor:
        """Returns the next z."""


class Gate(nn.Linear):
    """The affine map before a gate's sigmoid; its biases start at `initial_bias`."""

    initial_bias = HIGHWAY_BIAS


class ConvGate(nn.Conv2d):
    """The same for images: a convolution."""

    initial_bias = HIGHWAY_BIAS


MakeGate = Callable[[], Gate | ConvGate]
"""Builds a gate's affine map on the meta device, where it draws nothing from torch's global
generator."""


class MakeCombine(Protocol):
    """Builds the module of one branch."""

    def __call__(self, width: int, depth: int, make_gate: MakeGate | None = None, /) -> Combine:
        """Builds it for `depth` branches; a gate is linear from width to width unless given."""
        ...


Mean = Callable[[Callable[[Tensor], Tensor], float, Tensor], Tensor]
"""`mean(f, m, q)`: the mean of f(N(m, q)), for each variance of q; f may put functions in front."""


@dataclass(frozen=True)
class Mix:
    """How a skip changes variances at the start of training; all factors are mean-square.

    With v the variance of the branch and q that of z: the next z has `branch` v + `carried` q. With
    chi v's derivative by z as mean squares, dL/dz of an example has (`backward` chi + `carried`)
    times the mean square of the next.
    """

    branch: Tensor | float
    carried: Tensor | float
    backward: Tensor | float
    gate: Tensor | float | None = None
    """dL/d(gate's z) over dL/d(next z)."""


MakeMix = Callable[[Tensor, Tensor, int, Mean], Mix]
"""Gives the mix, from v, q, the depth and a function that takes means."""


@dataclass(frozen=True)
class Skip:
    """A named skip connection.

    One that adds has `combine(width, depth)`, which builds the module for one layer; one that
    concatenates gives W every earlier h side by side. Weights of a gate are not drawn yet.
    """

    summary: str
    combine: MakeCombine | None = None
    concatenates: bool = False
    mix: MakeMix = lambda _v, _q, _depth, _mean: Mix(1.0, 0.0, 1.0)
    """How it changes variances."""
    carries_z: bool = False
    """Whether z passes unchanged where the branch is 0, while the branch's weights learn."""
    keeps_path: bool = False
    """Whether the next z is z plus a function of the branch alone."""
    is_sum: bool = False
    """Whether the next z is z plus the branch as it is."""

    @property
    def adds(self) -> bool:
        """Whether the next z is combined from z and the branch."""
        return self.combine is not None

    @property
    def joins(self) -> bool:
        """Whether a layer reads more than the h before it."""
        return self.adds or self.concatenates


class Residual(Combine):
    """z + branch."""

    def forward(self, z_BW: Tensor, branch_BW: Tensor, h_BW: Tensor) -> Tensor:  # noqa: ARG002
        return z_BW + branch_BW


class ScaledResidual(Combine):
    """z + branch / sqrt(L), L the depth: the variance gained over L layers stays bounded."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(depth)

    def forward(self, z_BW: Tensor, branch_BW: Tensor, h_BW: Tensor) -> Tensor:  # noqa: ARG002
        return torch.add(z_BW, branch_BW, alpha=self.scale)


class Rezero(Combine):
    """z + alpha branch, alpha a trained number that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, z_BW: Tensor, branch_BW: Tensor, h_BW: Tensor) -> Tensor:  # noqa: ARG002
        return z_BW + self.alpha * branch_BW


class Highway(Combine):
    """T branch + (1 - T) z, T = sigmoid(W_T h + b_T), b_T = -2 at the start: mostly carried."""

    keeps_path = False

    def __init__(self, width: int, make_gate: MakeGate | None = None) -> None:
        super().__init__()
        gate = make_gate() if make_gate else Gate(width, width, device="meta")
        self.gate = allocate(gate)
        self.transform = nn.Sigmoid()
        assert self.gate.bias is not None
        nn.init.constant_(self.gate.bias, HIGHWAY_BIAS)

    @property
    def gates(self) -> tuple[tuple[Gate | ConvGate, nn.Sigmoid], ...]:
        """The one gate."""
        return ((self.gate, self.transform),)

    def forward(self, z_BW: Tensor, branch_BW: Tensor, h_BW: Tensor) -> Tensor:
        t_BW: Tensor = self.transform(self.gate(h_BW))
        return t_BW * branch_BW + (1 - t_BW) * z_BW


def _highway_mix(v: Tensor, q: Tensor, _depth: int, mean: Mean) -> Mix:
    """The mix of a gate that reads what the branch reads, with weights of the same variance.

    Its z has the branch's variance about b_T, and both are independent of each other and of z: the
    next variance is E[T^2] v + E[(1 - T)^2] q. Going back, the branch's weights bring E[T^2] and
    the gate's E[(T (1 - T))^2] (v + q), since dz'/d(gate's z) = T (1 - T) (branch - z).
    """

    def squares(g: Tensor) -> Tensor:
        t = torch.sigmoid(g)
        return torch.stack((t, 1 - t, t * (1 - t))).square_()

    opened, carried, swing = mean(squares, HIGHWAY_BIAS, v)
    gate = swing * (v + q)
    return Mix(opened, carried, opened + gate, gate)


SKIPS: Registry[Skip] = Registry(
    "skip",
    {
        "none": Skip("W h + b alone"),
        "residual": Skip(
            "z + W h + b (He 2016)",
            lambda _width, _depth, _make_gate=None: Residual(),
            mix=lambda _v, _q, _depth, _mean: Mix(1.0, 1.0, 1.0),
            carries_z=True,
            keeps_path=True,
            is_sum=True,
        ),
        "scaled_residual": Skip(
            "z + (W h + b) / sqrt(L), L the depth",
            lambda _width, depth, _make_gate=None: ScaledResidual(depth),
            mix=lambda _v, _q, depth, _mean: Mix(1 / depth, 1.0, 1 / depth),
            carries_z=True,
            keeps_path=True,
        ),
        "rezero": Skip(
            "z + alpha (W h + b), alpha trained from 0 (Bachlechner 2020)",
            lambda _width, _depth, _make_gate=None: Rezero(),
            mix=lambda _v, _q, _depth, _mean: Mix(0.0, 1.0, 0.0),
            keeps_path=True,
        ),
        "highway": Skip(
            "T (W h + b) + (1 - T) z, T a trained gate (Srivastava 2015)",
            lambda width, _depth, make_gate=None: Highway(width, make_gate),
            mix=_highway_mix,
        ),
        "dense": Skip("W on every earlier h side by side (Huang 2017)", concatenates=True),
    },
)
"""Name -> skip connection."""
