"""Tabulates means over u ~ N(0, q) of one activation in ln q, for deep nets need many.

Between the points of the table the logarithms of E phi^2 and E phi'^2 are cubic in ln q, with the
slopes of Stein's identity, d E f(u) / d ln q = E f(u) (u^2/q - 1) / 2: right to about 1e-8. Below
its lower end, 1e-12, they are powers of q, right to about 1e-5: phi is a straight line there, on
either side of 0. Above 1e6 the means are taken themselves, or, where many variances are asked for
and few of them count, are powers of q as well (`Table`). Of a homogeneous phi, one with
phi(s u) = s phi(u) for s > 0, no table is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vgexp.theory.function import Function
from vgexp.theory.quadrature import line

_LOW, _HIGH, _POINTS = math.log(1e-12), math.log(1e6), 700
_TOGETHER = 100
_STEP = (_HIGH - _LOW) / (_POINTS - 1)


@dataclass(frozen=True)
class Table:
    """ln E phi^2 and ln E phi'^2 at points of ln q, and their slopes there; [2, points]."""

    log_mean: Tensor
    slope: Tensor

    def __call__(self, q_A: Tensor) -> tuple[Tensor, Tensor]:
        """E phi^2 and E phi'^2; beyond the table's ends as powers of q."""
        log_A = q_A.clamp(min=1e-300).log()
        place_A = ((log_A - _LOW) / _STEP).clamp(0, _POINTS - 1)
        index_A = place_A.long().clamp(max=_POINTS - 2)
        t_A = place_A - index_A
        low, high = self.log_mean[:, index_A], self.log_mean[:, index_A + 1]
        up_low, up_high = self.slope[:, index_A] * _STEP, self.slope[:, index_A + 1] * _STEP
        rest_A = 1 - t_A
        cubic = rest_A**2 * ((1 + 2 * t_A) * low + t_A * up_low) + t_A**2 * (
            (1 + 2 * rest_A) * high - rest_A * up_high
        )
        below_A, above_A = (log_A - _LOW).clamp(max=0), (log_A - _HIGH).clamp(min=0)
        beyond = self.slope[:, :1] * below_A + self.slope[:, -1:] * above_A
        mean = (cubic + beyond).exp()
        return mean[0], mean[1]


def squares(phi: Function, q_A: Tensor) -> tuple[Tensor, Tensor]:
    """Computes E phi^2 and E phi'^2, from the table where it has them."""
    if phi.is_homogeneous:
        square, slope_square = _of_one(phi)
        return square * q_A, slope_square * torch.ones_like(q_A)
    found = table(phi) if bool((q_A < math.exp(_HIGH)).all()) else None
    return found(q_A) if found is not None else _taken(phi, q_A)


@lru_cache(maxsize=32)
def table(phi: Function) -> Table | None:
    """Makes the table of an activation; None where a mean is 0 or not finite somewhere."""
    q_P = torch.linspace(_LOW, _HIGH, _POINTS, dtype=torch.float64).exp()
    parts = [_rows(phi, q_P[start : start + _TOGETHER]) for start in range(0, _POINTS, _TOGETHER)]
    mean, slope = (torch.cat(side, 1) for side in zip(*parts, strict=True))
    log_mean, slope = mean.log(), slope / mean
    known = bool(log_mean.isfinite().all()) and bool(slope.isfinite().all())
    return Table(log_mean, slope) if known else None


def _taken(phi: Function, q_A: Tensor) -> tuple[Tensor, Tensor]:
    nodes = line(q_A, phi.kinks, phi.resolution)
    return nodes.mean(phi.value(nodes.u_AN).square()), nodes.mean(phi.slope(nodes.u_AN).square())


@lru_cache(maxsize=32)
def _of_one(phi: Function) -> tuple[float, float]:
    square_1, slope_1 = _taken(phi, torch.ones(1, dtype=torch.float64))
    return float(square_1), float(slope_1)


def _rows(phi: Function, q_P: Tensor) -> tuple[Tensor, Tensor]:
    nodes = line(q_P, phi.kinks, phi.resolution)
    bend_PN = (nodes.u_AN.square() / q_P[:, None] - 1) / 2
    values = [f(nodes.u_AN).square() for f in (phi.value, phi.slope)]
    return (
        torch.stack([nodes.mean(f) for f in values]),
        torch.stack([nodes.mean(f * bend_PN) for f in values]),
    )
