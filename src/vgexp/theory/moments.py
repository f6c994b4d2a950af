"""Computes means over the units of one layer: of h and phi', with dropout and norms.

u is what phi reads: z, or z normalised. Axes: A groups of examples, N nodes.

A normalisation of few Gaussian numbers makes points of a sphere of them, not Gaussian ones
(`quadrature.sphere_line`), and divides by a root mean square that fluctuates: with d dimensions
left of m numbers, E 1/s^2 = m / ((d - 2) q). dL/dz is (dL/du less its projections on 1, where it
centres, and on u) / s. Over the batch, what comes back sums to 0 over examples where the next norm
is one too, so that the projections are smaller than those of numbers in no relation: `shared_A`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vgexp.norms import EPS
from vgexp.theory.function import Function
from vgexp.theory.quadrature import LineNodes, line, sphere_line
from vgexp.theory.shapes import Shape, shape
from vgexp.theory.tables import squares

FEWEST = 4
"""Dimensions that must be left to a normalisation: with fewer the mean of 1/s^2 is ruled by rare
draws, or infinite."""

MOVED = 0.1
"""Change of ln q, and of c over 1 - c, up to which fluctuations are taken to be the same."""
NEAR = 1e-4
SMALLEST, LARGEST = 1e-12, 1e60
"""Variances beyond which fluctuations are those of the nearer: phi is a straight line on either
side of 0, or fourth powers end."""


@dataclass(frozen=True)
class NormMoments:
    """The moments of a norm: how many numbers it takes together, and their dimensions after it."""

    size: int
    dimensions: float
    centred: bool
    over_batch: float | None = None
    """Of a norm over the batch: E 1/s^2 times what s^2 is on average; None: over the width."""

    @property
    def inverse_square(self) -> float:
        """E q / s^2; q of a batch is what two examples do not share."""
        left = (self.size - self.centred) / self.size
        mean = (
            self.dimensions / (self.dimensions - 2) if self.over_batch is None else self.over_batch
        )
        return mean / left


@dataclass(frozen=True)
class Moments:
    """Of one layer: second moments of each group, and two examples' shared ones."""

    h_A: Tensor
    """E h^2."""
    hh: float
    """E h h' of two examples."""
    back_A: Tensor
    """E phi'^2, with what dropout and the norm do to dL/dh on its way to z."""
    back_alike: float
    """The same of two examples over that of one: how far their dL/dz stay alike."""
    slope_A: Tensor
    """E phi'^2 alone."""
    shape: Shape
    shared_A: Tensor | None = None
    """Of a norm over the batch: what is taken off `back_A` for each part of dL/dh that examples
    have in common, at a correlation of 1 of different ones."""

    def back_at(self, together: float) -> Tensor:
        """`back_A` where dL/dh of two examples has this correlation, with its sign."""
        if self.shared_A is None:
            return self.back_A
        return (self.back_A - together * self.shared_A).clamp(min=0)


class Means:
    """Means of one activation; what hardly changes from layer to layer is not taken again.

    Args:
        keep: probability with which dropout keeps a unit, divided by it.
    """

    def __init__(self, phi: Function, keep: float) -> None:
        self.phi, self.keep = phi, keep
        self._shapes: dict[bool, tuple[float, float, Shape]] = {}
        self._sphere: tuple[NormMoments, Tensor, tuple[Tensor, Tensor, Tensor]] | None = None
        self._along: tuple[float, float, float] | None = None

    def shape(self, q: float, c: float, *, of_pairs: bool = False) -> Shape:
        """`shape` at about this variance and correlation, with `product` moved to them.

        Kept until ln q has moved by `MOVED`, or c by that share of 1 - c: E phi phi' is then right
        to second order in that, with the slope q E phi' phi' of Price's theorem.

        Args:
            of_pairs: whether c is the pairs' root mean square, kept beside the mean one.
        """
        scale, asked = (q, 1.0) if self.phi.is_homogeneous else (1.0, q)
        at = min(max(asked, SMALLEST), LARGEST)
        kept = self._shapes.get(of_pairs)
        if kept is None or not (abs(at / kept[0] - 1) < MOVED if kept[0] > 0 else at == kept[0]):
            kept = None
        if kept is None or abs(c - kept[1]) >= MOVED * (1 - kept[1]):
            kept = self._shapes[of_pairs] = at, c, shape(self.phi, at, c, self.keep)
        before_q, before_c, found = kept
        (square_before, square), (slope, _) = (
            side.tolist() for side in squares(self.phi, torch.tensor([before_q, asked]).double())
        )
        moved = found.product + before_q * found.crossed * slope * (c - before_c)
        product = scale * moved * (square / square_before if square_before > 0 else 1.0)
        return replace(found, product=product)

    def sphere(self, norm: NormMoments, scale_A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E phi^2, E phi'^2, and E phi'^2 with what the norm's projections leave, of its output.

        Kept until dimensions or scales have moved by a part in 1e4.
        """
        kept = self._sphere
        if kept is not None:
            is_near = abs(norm.dimensions / kept[0].dimensions - 1) < NEAR
            if is_near and bool(((scale_A - kept[1]).abs() < NEAR).all()):
                return kept[2]
        unit = sphere_line(norm.dimensions, self.phi.kinks, self.phi.resolution)
        nodes = LineNodes(unit.u_AN * scale_A.sqrt()[:, None], unit.weight_AN)
        slope_AN = self.phi.slope(nodes.u_AN).square()
        left_AN = (1 - norm.centred / norm.size - unit.u_AN.square() / norm.size).clamp(min=0)
        found = (
            nodes.mean(self.phi.value(nodes.u_AN).square()),
            nodes.mean(slope_AN),
            nodes.mean(slope_AN * left_AN),
        )
        self._sphere = norm, scale_A, found
        return found

    def along(self, q: float, c: float) -> float:
        """E phi' phi'' + E phi' u phi'' u'' / q of two examples: how far projections of their dL/du
        on 1 and on u add up. Kept until q has moved by a part in 1e4."""
        q, kept = max(q, SMALLEST), self._along
        if kept is None or kept[1] != c or abs(q / kept[0] - 1) >= NEAR:
            slope = self.phi.slope
            both = self.phi.mean_product(slope, slope, (q, q), c)
            with_u = self.phi.mean_product(
                lambda u: slope(u) * u, lambda v: slope(v) * v, (q, q), c
            )
            kept = self._along = q, c, both + with_u / q
        return kept[2]


def pre(means: Means, q_A: Tensor, c: float, norm: NormMoments | None) -> Moments:
    """Computes the moments of h = phi(norm(z))."""
    keep, shared_A = means.keep, None
    if norm is None:
        square_A, slope_A = squares(means.phi, q_A)
        back_A, found = slope_A, means.shape(float(q_A.mean()), c)
    else:
        within_A, scale_A = divided(norm, q_A, c)
        square_A, slope_A, back_A = means.sphere(norm, scale_A)
        divided_by_A = norm.inverse_square / (within_A + EPS)
        back_A = back_A * divided_by_A
        scale = float(scale_A.mean())
        if norm.over_batch is not None:
            c = -1 / max(norm.size - 1, 1)
            shared_A = means.along(scale, c) * divided_by_A * (1 - 1 / norm.size)
        found = means.shape(scale, c)
    return Moments(
        square_A / keep, found.product, back_A / keep, found.crossed * keep, slope_A, found,
        shared_A,
    )  # fmt: skip


def divided(norm: NormMoments, q_A: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """What each example is divided by, as a mean square, and what is left of its own.

    Over the batch all are divided by one, the mean over examples of what two do not share.
    """
    if norm.over_batch is None:
        return q_A, q_A / (q_A + EPS)
    within_A = (q_A.mean() * (1 - c)).expand_as(q_A)
    return within_A, q_A * (1 - c) / (within_A + EPS)


def post(means: Means, q_A: Tensor, c: float, norm: NormMoments) -> Moments:
    """Computes the moments of h = norm(phi(z))."""
    phi, keep = means.phi, means.keep
    plain, nodes = pre(means, q_A, c, None), line(q_A, phi.kinks, phi.resolution)
    mean_A = nodes.mean(phi.value(nodes.u_AN)) if norm.centred else torch.zeros_like(q_A)
    shared = float(mean_A.mean()) ** 2
    within_A = (plain.h_A * keep - mean_A.square()).clamp(min=0)
    # Of population variances: what is left of a mean square of m numbers once centred.
    left = 1 - norm.centred / norm.size
    scale_A = 1 / (within_A * left + EPS)
    within = max(float(within_A.mean()), 1e-300)
    pair = (plain.hh - shared) / within
    varied = _of_scale(phi, nodes, mean_A, within_A, norm)
    unit_A = within_A * left * scale_A
    return Moments(
        unit_A / keep,
        float(unit_A.mean()) * pair,
        plain.slope_A * scale_A * varied / keep,
        plain.back_alike,
        plain.slope_A,
        plain.shape,
    )


def _of_scale(
    phi: Function, nodes: LineNodes, mean_A: Tensor, within_A: Tensor, norm: NormMoments
) -> Tensor:
    """Factor on the mean square of dL/dz of m numbers that are divided by their own deviation s.

    With w = (phi - mean)^2 / variance: 1/s^2 has the mean 1 + Var(w)/m over the variance, phi'^2
    goes along with s^2, and the projections on 1 and on h take their parts: to first order in 1/m,
    1 + (Var(w) - Cov(phi'^2, w) - E phi'^2 w - centred) / m, of phi'^2 over its mean.
    """
    w_AN = (phi.value(nodes.u_AN) - mean_A[:, None]).square() / within_A.clamp(min=1e-300)[:, None]
    slope_AN = phi.slope(nodes.u_AN).square()
    along_A = nodes.mean(slope_AN * w_AN) / nodes.mean(slope_AN).clamp(min=1e-300)
    varies_A = nodes.mean(w_AN.square()) - 1
    return torch.exp((varies_A - (along_A - 1) - along_A - float(norm.centred)) / norm.size)
