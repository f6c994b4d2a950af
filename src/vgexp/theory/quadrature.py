"""Computes Gaussian integrals by composite Gauss-Legendre quadrature of the integrand itself.

A mean over u ~ N(0, q) is an integral over g = u / sqrt(q) in [-R, R], cut into panels at whole
steps of g, where the Gaussian weight bends, and at the places of u where an activation does: its
kinks, where a panel must end, and a graded mesh about 0 and each kink, since for a large q the
whole of a sigmoid lies within a small part of one step. Left out: R = 12 cuts off 1e-32 of the
weight.

Axes: A variances, N nodes of the line, M inner nodes of the plane, P panel ends, K nodes a panel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

REACH = 12.0
"""R: standard deviations at which a Gaussian is cut off."""
GRADED = (
    *(0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0),
    *(10.0, 12.5, 15.0, 18.0, 22.0, 27.0, 33.0, 40.0),
)
"""Distances in u from a kink and from 0 at which panels end; a sigmoid is flat beyond 40."""
SPREADS = (0.02, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)
"""Distances from a kink at which outer panels end, over the width to which the inner mean has
smoothed it."""


@dataclass(frozen=True)
class Resolution:
    """How finely a mean is taken."""

    order: int
    """Nodes of a panel."""
    step: float
    """Length in g of the panels of the Gaussian weight."""
    grades: Sequence[float] = GRADED


FINE = Resolution(16, 1.0)
"""1e-10 and better on a line, 1e-8 on a plane, of activations whose kinks are known."""
FINER = Resolution(24, 0.5, tuple(i / 4 for i in range(1, 64)) + GRADED[-6:])
"""Of activations of which nothing is known; and to tell the error of `FINE`."""
COARSE = Resolution(6, 3.0, (0.75, 2.0, 5.0, 12.0, 30.0))
"""1e-4: for what is a correction itself."""


@dataclass(frozen=True)
class LineNodes:
    """Nodes and weights of u ~ N(0, q_A)."""

    u_AN: Tensor
    weight_AN: Tensor

    def mean(self, values_AN: Tensor) -> Tensor:
        """The mean of a function from its values at the nodes [A, N] (or [.., A, N])."""
        return (values_AN * self.weight_AN).sum(-1)


@dataclass(frozen=True)
class PlaneNodes:
    """Nodes and weights of (u, v) jointly Gaussian."""

    u_N: Tensor
    v_NM: Tensor
    weight_N: Tensor
    inner_NM: Tensor

    def mean(self, of_u_N: Tensor, of_v_NM: Tensor) -> Tensor:
        """The mean of a product, from values of one factor at u and of the other at v."""
        return (of_u_N * self.weight_N * (of_v_NM * self.inner_NM).sum(-1)).sum(-1)


def line(q_A: Tensor, kinks: Sequence[float] = (), resolution: Resolution = FINE) -> LineNodes:
    """Makes nodes for means over u ~ N(0, q), for each variance, which may be 0."""
    deviation_A1 = q_A.to(torch.float64).clamp(min=0).sqrt()[:, None]
    bends_P = _tensor(_bends(tuple(kinks), resolution))
    ends_AP = _panel_ends(bends_P / _positive(deviation_A1), resolution, REACH)
    g_AN, weight_AN = _nodes(ends_AP, resolution.order)
    weight_AN = weight_AN * torch.exp(-0.5 * g_AN * g_AN) / math.sqrt(2 * math.pi)
    return LineNodes(deviation_A1 * g_AN, weight_AN)


def sphere_line(
    num: float, kinks: Sequence[float] = (), resolution: Resolution = FINE
) -> LineNodes:
    """For means over one coordinate, of mean square 1, of a uniform point of a sphere in R^num.

    That is what normalised Gaussian numbers are: n of them over their root mean square with
    num = n, centred before that with num = n - 1 (times sqrt(num), of mean square 1). Of
    u = sqrt(num) sin t the density is proportional to cos(t)^(num - 2). `num` need not be whole,
    and is above 1; from 1 on down u is 1 or -1.
    """
    root = math.sqrt(num)
    bends_P = _tensor(_bends(tuple(kinks), resolution)) / root
    angles_1P = torch.asin(bends_P.clamp(-1, 1))[None] * root
    reach = min(REACH, root * math.pi / 2)
    t_1N, weight_1N = _nodes(_panel_ends(angles_1P, resolution, reach), resolution.order)
    t_1N = t_1N / root
    density_1N = torch.cos(t_1N).clamp(min=1e-300) ** (num - 2)
    weight_1N = weight_1N * density_1N
    return LineNodes(root * torch.sin(t_1N), weight_1N / weight_1N.sum())


def plane(
    q: tuple[float, float],
    correlation: float,
    kinks: Sequence[float] = (),
    resolution: Resolution = FINE,
) -> PlaneNodes:
    """For means over (u, v) of variances q and of that correlation, in [-1, 1].

    v given u is Gaussian: the inner panels end where v is at a kink. The inner mean is a function
    of u that does what phi does where v's mean is at the same place, its kinks smoothed to a width
    of sqrt(1 - c^2); outer panels are graded about these too.
    """
    root_u, root_v = (math.sqrt(max(variance, 0.0)) for variance in q)
    c, s = correlation, math.sqrt(max((1 - correlation) * (1 + correlation), 0.0))
    bends_P = _tensor(_bends(tuple(kinks), resolution))
    smoothed = _tensor(
        [
            sign * (kink / max(root_v, 1e-150) + side * s * spread)
            for kink in {0.0, *kinks}
            for sign in {1.0, math.copysign(1.0, c)}
            for side in (-1, 1)
            for spread in SPREADS
        ]
    )
    of_v_P = math.copysign(1.0, c) * bends_P / max(root_v, 1e-150)
    outer_P = torch.cat((bends_P / max(root_u, 1e-150), of_v_P, smoothed))
    g_1N, weight_1N = _nodes(_panel_ends(outer_P[None], resolution, REACH), resolution.order)
    g_N, weight_N = g_1N[0], weight_1N[0]
    weight_N = weight_N * torch.exp(-0.5 * g_N * g_N) / math.sqrt(2 * math.pi)
    inner_NP = (bends_P / max(root_v, 1e-150) - c * g_N[:, None]) / max(s, 1e-150)
    e_NM, inner_NM = _nodes(_panel_ends(inner_NP, resolution, REACH), resolution.order)
    inner_NM = inner_NM * torch.exp(-0.5 * e_NM * e_NM) / math.sqrt(2 * math.pi)
    return PlaneNodes(root_u * g_N, root_v * (c * g_N[:, None] + s * e_NM), weight_N, inner_NM)


@lru_cache(maxsize=64)
def _bends(kinks: tuple[float, ...], resolution: Resolution) -> tuple[float, ...]:
    """Places in u at which panels end."""
    centres = {0.0, *kinks}
    grades = (0.0, *resolution.grades)
    return tuple(sorted({c + side * d for c in centres for d in grades for side in (-1, 1)}))


def _panel_ends(bends_AP: Tensor, resolution: Resolution, reach: float) -> Tensor:
    """Sorted ends in [-reach, reach]; bends beyond fall on an end and make panels of no length."""
    num = 2 * math.ceil(reach / resolution.step) + 1
    steps_P = torch.linspace(-reach, reach, num, dtype=torch.float64)
    ends_AP = torch.cat((bends_AP.clamp(-reach, reach), steps_P.expand(len(bends_AP), -1)), 1)
    return ends_AP.sort(1).values


def _nodes(ends_AP: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights [A, N] of all panels."""
    node_K, weight_K = _legendre(order)
    half_AP = (ends_AP[:, 1:] - ends_AP[:, :-1]) / 2
    middle_AP = (ends_AP[:, 1:] + ends_AP[:, :-1]) / 2
    if len(ends_AP) == 1:  # panels of no length are left out where that is the same for all
        keep = half_AP[0] > 0
        half_AP, middle_AP = half_AP[:, keep], middle_AP[:, keep]
    node_AN = (middle_AP[..., None] + half_AP[..., None] * node_K).flatten(1)
    return node_AN, (half_AP[..., None] * weight_K).flatten(1)


@lru_cache(maxsize=16)
def _legendre(order: int) -> tuple[Tensor, Tensor]:
    node, weight = np.polynomial.legendre.leggauss(order)
    return torch.from_numpy(node), torch.from_numpy(weight)


def _positive(deviation: Tensor) -> Tensor:
    return deviation.clamp(min=1e-150)


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
