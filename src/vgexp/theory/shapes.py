"""Computes how means of phi'^2 and phi^2 over the units of one layer fluctuate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from vgexp.theory.function import Function
from vgexp.theory.quadrature import COARSE, line, plane


@dataclass(frozen=True)
class Shape:
    """Fluctuations of the mean of phi'^2 and phi^2 over the units at a given mean of z^2.

    Covariances for one example with itself, and for two, each relative to the means' product.
    """

    slopes: tuple[float, float]
    """Of phi'^2."""
    squares: tuple[float, float]
    """Of phi^2."""
    both: tuple[float, float]
    """Of phi'^2 with phi^2."""
    kurtosis: tuple[float, float]
    """E phi'^2 phi'^2 over the squared mean."""
    back_by_q: float
    """d ln E phi'^2 / d ln q."""
    h_by_q: float
    """d ln E phi^2 / d ln q."""
    crossed: float
    """E phi' phi' of two examples over E phi'^2."""
    product: float
    """E phi phi of two examples, to 1e-4."""
    cubed: tuple[float, float]
    """E f^3 f of two examples over (E f^2)^2, f = phi' and phi."""


@lru_cache(maxsize=128)
def shape(phi: Function, q: float, c: float, keep: float) -> Shape:
    """Computes fluctuations at one variance and correlation; after a norm, at q near 1.

    Kept, since runs of one network that differ in how they train ask for the same.

    A function f of a unit has the part f~ = f - Cov(f, w) (w - 1)/2, w = z^2/q of variance 2, that
    a given mean of z^2 leaves open. Of two examples of correlation c, Cov(f(u), w(v)) is
    c^2 Cov(f, w), so that Cov(f~, g~') = Cov(f, g') - c^2 Cov(f, w) Cov(g, w) / 2. And
    d E f / d ln q = Cov(f, w) / 2. A unit that is dropped is so for phi^2 and phi'^2 together.
    """
    one = line(torch.tensor([q], dtype=torch.float64), phi.kinks, COARSE)
    two = plane((q, q), c, phi.kinks, COARSE)
    w = one.u_AN.square() / max(q, 1e-300) - 1

    value_u, value_v = phi.value(two.u_N), phi.value(two.v_NM)
    slope_u, slope_v = phi.slope(two.u_N), phi.slope(two.v_NM)
    at_one = phi.slope(one.u_AN).square(), phi.value(one.u_AN).square()
    at_u, at_v = (slope_u.square(), value_u.square()), (slope_v.square(), value_v.square())
    means = [max(float(one.mean(f)), 1e-300) for f in at_one]
    bends = [float(one.mean(f * w)) / m for f, m in zip(at_one, means, strict=True)]

    def covariance(i: int, j: int) -> tuple[float, float]:
        scale = means[i] * means[j]
        alone = float(one.mean(at_one[i] * at_one[j])) / scale / keep - 1
        together = float(two.mean(at_u[i], at_v[j])) / scale - 1
        bend = bends[i] * bends[j] / 2
        return max(alone - bend, 0.0) if i == j else alone - bend, together - c * c * bend

    slopes, squares, both = covariance(0, 0), covariance(1, 1), covariance(0, 1)
    bend = bends[0] ** 2 / 2
    crossed = float(two.mean(slope_u, slope_v)) / means[0]
    return Shape(
        slopes,
        squares,
        both,
        (slopes[0] + bend + 1, slopes[1] + c * c * bend + 1),
        bends[0] / 2,
        bends[1] / 2,
        crossed,
        float(two.mean(value_u, value_v)),
        (
            float(two.mean(slope_u**3, slope_v)) / means[0] ** 2,
            float(two.mean(value_u**3, value_v)) / means[1] ** 2,
        ),
    )
