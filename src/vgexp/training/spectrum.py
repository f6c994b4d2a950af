"""The extreme eigenvalues and the trace of a symmetric matrix, from products with vectors.

Axes: P entries of a vector, M vectors of a basis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vgexp import metrics

Product = Callable[[Tensor], Tensor]
"""v [P] -> H v [P]."""

BASIS = 16
"""Basis vectors that are kept at most."""
KEPT_TOP = 3
"""Eigenvectors kept at a restart: this many at the upper end, and one at the lower."""
PRODUCTS = (10, 30)
"""Products at least and at most: a start near one eigenvector seems converged too early."""
TOLERANCE = 1e-3
"""Residual over the largest eigenvalue at which the iteration may stop."""


@dataclass(frozen=True)
class Ends:
    """The ends of a spectrum; nan where a product is not finite.

    A residual is |H v - theta v| for a unit vector v: some eigenvalue is no farther than that from
    theta, and the error of theta is of the order of its square. theta lies within the spectrum.
    """

    largest: float
    """By value, not by magnitude."""
    largest_residual: float
    smallest: float
    smallest_residual: float
    vector_P: Tensor
    """The eigenvector of the largest, of length 1."""
    basis_MP: Tensor
    """An orthonormal basis of the searched subspace."""
    basis_trace: float
    """Sum of v.Hv over them."""
    num_products: int


def ends(product: Product, start_P: Tensor, products: tuple[int, int] = PRODUCTS) -> Ends:
    """Finds the largest and the smallest eigenvalue by Lanczos' method with full orthogonalisation.

    A basis V of the space spanned by v, Hv, H^2 v, ... is kept, M vectors; T = V H V^T has
    eigenvalues theta. When the basis is full, it is restarted from their ends (thick restart, Wu &
    Simon 2000). The iteration stops when the residual of the largest is small enough; the smallest
    may be known less well by then.

    Args:
        start_P: not zero. Eigenvectors that are orthogonal to it are not found.
        products: how many at least and at most.
    """
    least, most = products
    basis_MP = start_P.new_empty(min(BASIS, len(start_P)), len(start_P))
    basis_MP[0] = start_P / metrics.row_norms(start_P[None])
    t_MM = torch.zeros(len(basis_MP), len(basis_MP), dtype=torch.float64)
    size, count = 1, 0
    while True:
        rest_P, column_M = _orthogonalise(product(basis_MP[size - 1]), basis_MP[:size])
        count += 1
        t_MM[:size, size - 1] = t_MM[size - 1, :size] = column_M
        if not math.isfinite(float(column_M.sum())):
            return _unknown(basis_MP[:size], count)
        theta_M, vectors_MM = torch.linalg.eigh(t_MM[:size, :size])
        beta = _norm(rest_P)
        residual_M = beta * vectors_MM[-1].abs()
        radius = float(theta_M.abs().max())
        noise = 10 * torch.finfo(start_P.dtype).eps * radius
        is_known = float(residual_M[-1]) <= max(TOLERANCE * abs(float(theta_M[-1])), noise)
        is_all = beta <= noise or size == len(start_P)
        if is_all or count >= most or (is_known and count >= least):
            break
        if size == len(basis_MP):
            kept = [0, *range(size - KEPT_TOP, size)]
            size = len(kept)
            basis_MP[:size] = vectors_MM[:, kept].T.to(basis_MP) @ basis_MP
            t_MM = torch.zeros_like(t_MM)
            t_MM[range(size), range(size)] = theta_M[kept]
        basis_MP[size] = rest_P / beta
        size += 1
    return Ends(
        float(theta_M[-1]),
        float(residual_M[-1]),
        float(theta_M[0]),
        float(residual_M[0]),
        vectors_MM[:, -1].to(basis_MP) @ basis_MP[:size],
        basis_MP[:size],
        float(theta_M.sum()),
        count,
    )


def trace(product: Product, ends: Ends, probes: Iterable[Tensor]) -> tuple[float, float]:
    """Estimates the trace and its standard error, by Hutchinson's method outside the basis.

    tr H = sum of v.Hv over the basis + E[z.Hz], z a vector of independent signs less its part in
    the basis (Hutchinson 1989; Meyer 2021): no eigenvalue that the basis holds adds to the error.

    Args:
        probes: vectors of independent signs, at least two.
    """
    basis_MP = ends.basis_MP
    if len(basis_MP) == basis_MP.shape[1]:
        return ends.basis_trace, 0.0
    seen = []
    for signs_P in probes:
        z_P = torch.addmv(signs_P, basis_MP.T, basis_MP @ signs_P, alpha=-1)
        seen.append(torch.dot(z_P.double(), product(z_P).double()))
    seen_N = torch.stack(seen).cpu()
    error = float(seen_N.std()) / math.sqrt(len(seen))
    return ends.basis_trace + float(seen_N.mean()), error


def _orthogonalise(rest_P: Tensor, basis_MP: Tensor) -> tuple[Tensor, Tensor]:
    """Subtracts a vector's part in the basis; that part's coefficients, float64 on the host."""
    column_M = torch.zeros(len(basis_MP), dtype=torch.float64)
    for _ in range(2):  # the second time removes rounding errors
        part_M = basis_MP @ rest_P
        rest_P = torch.addmv(rest_P, basis_MP.T, part_M, alpha=-1)
        column_M += part_M.double().cpu()
    return rest_P, column_M


def _norm(x_P: Tensor) -> float:
    """The length of a vector, also where its squares are out of the dtype's range."""
    peak = float(x_P.abs().max())
    return float(metrics.row_norms((x_P / peak)[None])) * peak if 0 < peak < math.inf else peak


def _unknown(basis_MP: Tensor, count: int) -> Ends:
    nan = math.nan
    return Ends(nan, nan, nan, nan, basis_MP[0], basis_MP, nan, count)
