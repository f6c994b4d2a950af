"""Computes E phi(u) phi(v) of many pairs at once, as a power series in their correlation.

With Hermite polynomials of unit norm, phi(sqrt(q) g) = sum_k a_k(q) He_k(g), and of correlation c
E phi(u) phi(v) = sum_k a_k(q_u) a_k(q_v) c^k (Daniely 2016). It is cut off after k = 32; the rest
of E phi^2 is given to k = 33, so that c = 1 is exact: 1e-3 of E phi^2 for relu, less elsewhere.

Axes: K orders, P positions or what else pairs are made of, G variances of a grid, N nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vgexp.theory.function import Function
from vgexp.theory.quadrature import line
from vgexp.theory.tables import squares

ORDER = 32
SMALLEST = 1e-200
_GRID = 40
"""Variances of a layer at which coefficients are taken, linear in ln q between them."""


def coefficients(phi: Function, q: Tensor) -> Tensor:
    """Computes coefficients [K, ...] at variances [...]; the last is the series' remainder."""
    square = squares(phi, q.flatten())[0].view(q.shape)
    at = q.clamp(min=SMALLEST)
    if phi.is_homogeneous:
        one_K = _taken(phi, torch.ones(1, dtype=torch.float64))[:, 0]
        found = one_K.view(-1, *(1,) * q.ndim) * at.sqrt()
    else:
        found = _between(phi, at) * square.sqrt()
    rest = (square - found.square().sum(0)).clamp(min=0).sqrt()
    return torch.cat((found, rest[None]))


def product(a_K: Tensor, b_K: Tensor, c: Tensor) -> Tensor:
    """Computes E phi(u) phi(v) from the coefficients of both."""
    total = a_K[-1] * b_K[-1]
    for a, b in zip(a_K.flip(0)[1:], b_K.flip(0)[1:], strict=True):
        total = torch.addcmul(a * b, total, c)
    return total


def scale_free(phi: Function, c: Tensor) -> Tensor:
    """Computes E phi(u) phi(v) at variances of 1, which is enough for a homogeneous phi."""
    one = torch.ones(1, dtype=torch.float64)
    squared_K = coefficients(phi, one)[:, 0].square().tolist()
    total = torch.full_like(c, squared_K[-1])
    for squared in squared_K[-2::-1]:
        total.mul_(c).add_(squared)
    return total


def _between(phi: Function, q: Tensor) -> Tensor:
    """Over the root of E phi^2."""
    log = q.log()
    low, high = log.min(), log.max()
    if float(high - low) < 1e-9:
        high = low + 1
    grid_G = torch.linspace(float(low), float(high), _GRID, dtype=torch.float64).exp()
    at_KG = _taken(phi, grid_G) / squares(phi, grid_G)[0].clamp(min=SMALLEST).sqrt()
    place = (log - low) / (high - low) * (_GRID - 1)
    index = place.long().clamp(max=_GRID - 2)
    return torch.lerp(at_KG[:, index], at_KG[:, index + 1], place - index)


def _taken(phi: Function, q_G: Tensor) -> Tensor:
    """[K, G]."""
    nodes = line(q_G, phi.kinks, phi.resolution)
    g_GN = nodes.u_AN / q_G.clamp(min=1e-300).sqrt()[:, None]
    value_GN = phi.value(nodes.u_AN)
    before, here = torch.zeros_like(g_GN), torch.ones_like(g_GN)
    found = []
    for k in range(ORDER + 1):
        found.append(nodes.mean(value_GN * here))
        before, here = here, (g_GN * here - k**0.5 * before) / (k + 1) ** 0.5
    return torch.stack(found)
