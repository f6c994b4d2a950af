"""Tabulates in ln q how much means over the units of one layer fluctuate.

Of one example, by the same formulas as `shapes`, which has two examples besides. Linear in ln q
between the points, good to 1e-3, and constant beyond the ends: these are corrections themselves.

Axes: G variances that are asked for, P points of the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vgexp.theory.function import Function
from vgexp.theory.quadrature import COARSE, line

_LOW, _HIGH, _POINTS = math.log(1e-14), math.log(1e7), 400
_STEP = (_HIGH - _LOW) / (_POINTS - 1)


@dataclass(frozen=True)
class Fluctuations:
    """Moments of phi^2 and phi'^2 over units, relative to the product of their means; [G]."""

    square: Tensor
    """E phi^4 / (E phi^2)^2."""
    slope: Tensor
    """E phi'^4 / (E phi'^2)^2."""
    both: Tensor
    """E phi^2 phi'^2 / (E phi^2 E phi'^2)."""
    h_by_q: Tensor
    """d ln E phi^2 / d ln q."""
    back_by_q: Tensor
    """d ln E phi'^2 / d ln q."""


def fluctuations(phi: Function, q_G: Tensor) -> Fluctuations:
    """Interpolates the fluctuations at given variances."""
    table = _table(phi)
    place_G = ((q_G.clamp(min=1e-300).log() - _LOW) / _STEP).clamp(0, _POINTS - 1)
    index_G = place_G.long().clamp(max=_POINTS - 2)
    return Fluctuations(*torch.lerp(table[:, index_G], table[:, index_G + 1], place_G - index_G))


@lru_cache(maxsize=32)
def _table(phi: Function) -> Tensor:
    """[5, P], in the order of `Fluctuations`."""
    q_P = torch.linspace(_LOW, _HIGH, _POINTS, dtype=torch.float64).exp()
    nodes = line(q_P, phi.kinks, COARSE)
    value, slope = phi.value(nodes.u_AN).square(), phi.slope(nodes.u_AN).square()
    w = nodes.u_AN.square() / q_P[:, None] - 1
    of_value, of_slope = (nodes.mean(f).clamp(min=1e-300) for f in (value, slope))
    return torch.stack(
        [
            nodes.mean(value.square()) / of_value**2,
            nodes.mean(slope.square()) / of_slope**2,
            nodes.mean(value * slope) / of_value / of_slope,
            nodes.mean(value * w) / of_value / 2,
            nodes.mean(slope * w) / of_slope / 2,
        ]
    )
