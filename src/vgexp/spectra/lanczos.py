"""Finds the largest singular value of a Jacobian that is too large to be written out.

Golub & Kahan's bidiagonalisation (1965) on products with the Jacobian and its transpose, kept
orthogonal. Axes: N what the map reads, M what it makes, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vgexp import metrics
from vgexp.models.stages import Map

STEPS = 40
"""After them the value is below the true one by at most 1 % for spectra without gaps, such as a
random matrix's, and far less where the largest stands apart."""

_ROUNDING = 1e-10


def log_largest_singular_value(run: Map, x_1N: Tensor) -> float:
    """ln of the largest singular value, from below; -inf: the Jacobian is 0; nan: it is not finite.

    It begins at a direction that is the same for all.
    """
    times, times_transposed = _products(run, x_1N)
    start = torch.randn(x_1N.numel(), generator=_generator(), dtype=torch.float64)
    vs = [start / start.norm()]
    us: list[Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    for _ in range(min(STEPS, x_1N.numel())):
        u = _orthogonal(times(vs[-1]), us)
        alphas.append(_length(u))
        if not _goes_on(alphas[-1], alphas):
            break
        us.append(u / alphas[-1])
        v = _orthogonal(times_transposed(us[-1]), vs)
        betas.append(_length(v))
        if not _goes_on(betas[-1], alphas):
            break
        vs.append(v / betas[-1])
    return _log_largest(alphas, betas)


def _goes_on(length: float, alphas: list[float]) -> bool:
    """Whether a vector is a direction and not only rounding."""
    return _ROUNDING * max(alphas) < length < math.inf


def _log_largest(alphas: list[float], betas: list[float]) -> float:
    """The same of a bidiagonal matrix: alpha on its diagonal, beta right of it."""
    if not all(map(math.isfinite, (*alphas, *betas))):
        return math.nan
    size = len(alphas)
    b = torch.zeros(size, size + 1, dtype=torch.float64)
    b.diagonal()[:] = torch.tensor(alphas, dtype=torch.float64)
    b.diagonal(1)[: len(betas)] = torch.tensor(betas, dtype=torch.float64)
    largest = float(torch.linalg.svdvals(b)[0])
    return math.log(largest) if largest > 0 else -math.inf


def _products(
    run: Map, x_1N: Tensor
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Makes the functions v -> J v and u -> J^T u of flat vectors."""
    x = x_1N.detach().clone().requires_grad_()
    # The usual kernel of attention cannot be differentiated twice.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        y = run(x)
        u_M = torch.zeros_like(y, requires_grad=True)
        (back_N,) = torch.autograd.grad(y, x, u_M, create_graph=True)

    def times(v_N: Tensor) -> Tensor:
        # J^T u is linear in u: its derivative's transpose, times v, is J v.
        (made,) = torch.autograd.grad(back_N, u_M, v_N.view_as(x), retain_graph=True)
        return made.flatten()

    def times_transposed(u_M: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(y, x, u_M.view_as(y), retain_graph=True)
        return back.flatten()

    return times, times_transposed


def _orthogonal(x: Tensor, basis: list[Tensor]) -> Tensor:
    """Removes the parts of x along a basis, twice, since the first time leaves rounding."""
    if not basis:
        return x
    whole = torch.stack(basis)
    for _ in range(2):
        x = x - whole.T @ (whole @ x)
    return x


def _length(x: Tensor) -> float:
    """The L2 norm, also of entries of 1e-200."""
    return float(metrics.row_norms(x[None])[0])


def _generator() -> torch.Generator:
    """A generator of its own, so that no stream of the run changes."""
    return torch.Generator().manual_seed(0)
