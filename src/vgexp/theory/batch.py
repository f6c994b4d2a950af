"""Describes how the examples of a batch differ at each layer, for norms over the batch.

Axes: B examples, E eigenvalues, T points of an integral.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vgexp.theory.moments import NormMoments

_T = torch.logspace(-6, 9, 151, dtype=torch.float64)


@dataclass(frozen=True)
class Kernel:
    """Dot products of the examples' z, centred, over all units of a wide layer.

    A unit's z over the batch is Gaussian of this covariance: with eigenvalues l, of sum 1, its
    variance over the batch is a mean variance times sum l g^2, g standard normal. Layers make
    examples equally far from each other (Yang 2019, in the limit): the pattern of the
    inputs fades, and equal eigenvalues take its place.
    """

    eigenvalues_E: Tensor
    """l; B - 1 of them, of the inputs to begin with."""
    noise: float = 0.0
    """Mean square of what units of a finite width add to each correlation."""

    def norm(self) -> NormMoments:
        """The norm of a unit by its own mean and variance over the batch.

        E 1/s^2 is the integral over t > 0 of the product of (1 + 2 t l)^(-1/2). u has the moments
        of a sphere of 1 / sum l^2 dimensions, where the noise counts. What the noise does to 1/s^2
        is left out: at 64 units dL/dz may grow by 4 % a layer more (tanh; of relu 0.5 %).
        """
        eigen_E = self.eigenvalues_E
        weight_T, _ = _weights(eigen_E)
        inverse = float(torch.trapezoid(weight_T, _T.log())) + float(_T[0])
        dimensions = 1 / (float(eigen_E.square().sum()) + self.noise)
        return NormMoments(len(eigen_E) + 1, dimensions, True, inverse)

    def after(self, memory: float, share: float, width: int, *, is_divided: bool) -> Kernel:
        """Computes the kernel of the next z, of whose variance a branch makes a share.

        Each unit's z is divided by its own s, so that the branch reads eigenvalues E l g^2 / s^2,
        integrals with l / (1 + 2 t l) beside the weight: those of large l lose.

        Args:
            memory: factor of the activation on correlations.
            is_divided: whether a norm stands between z and the branch.
        """
        carried_E, num = self.eigenvalues_E, len(self.eigenvalues_E)
        read_E = carried_E
        if is_divided:
            weight_T, scaled_TE = _weights(carried_E)
            read_E = torch.trapezoid(weight_T[:, None] * carried_E / scaled_TE, _T.log(), dim=0)
            read_E = read_E / read_E.sum()
        branch_E = memory * read_E + (1 - memory) / num
        factor = 1 - share + share * memory
        noise = self.noise * factor**2 + share**2 / width
        return Kernel((1 - share) * carried_E + share * branch_E, noise)


def kernel(x_BF: Tensor) -> Kernel | None:
    """Computes the kernel of the inputs; None for one example, or where all are equal."""
    if len(x_BF) < 2:
        return None
    centred_BF = x_BF - x_BF.mean(0)
    eigen_E = torch.linalg.eigvalsh(centred_BF @ centred_BF.T)[1:].clamp(min=0)
    total = float(eigen_E.sum())
    return Kernel(eigen_E / total) if 0 < total < float("inf") else None


def _weights(eigen_E: Tensor) -> tuple[Tensor, Tensor]:
    """Of E f(l) / s^2 as an integral over ln t: t prod (1 + 2 t l)^(-1/2), and 1 + 2 t l [T, E]."""
    scaled_TE = 1 + 2 * _T[:, None] * eigen_E
    return _T * torch.exp(-0.5 * scaled_TE.log().sum(1)), scaled_TE
