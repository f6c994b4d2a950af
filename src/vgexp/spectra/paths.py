"""`paths.csv`: the share of the gradient that paths of each length carry (Veit 2016).

A net of n forks z <- after(path(z) + branch(z)) has 2^n paths, C(n, k) of them through k branches.
With a t on each branch the gradient is a polynomial in t, the product of (path^T + t branch^T), and
what paths of length k carry is its k-th coefficient: exact, n + 1 vectors carried backward instead
of 2^n paths. At initialisation the coefficients are nearly orthogonal, and with branches that
multiply the mean square by chi the shares are binomial with p = chi / (1 + chi).

Axes: K lengths, E examples, n forks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vgexp.models.stages import Fork, Map, Stage
from vgexp.records import Floats, Rows
from vgexp.spectra.frozen import run_stages

Loss = Callable[[Tensor], Tensor]
"""Of the outputs, summed over examples."""
EXAMPLES = 8
"""How many examples of the batch are used: its first."""
_ROWS = 2048
"""Examples times lengths that are differentiated at once, for memory's sake."""


def path_rows(stages: Sequence[Stage], x_E: Tensor, origin: str, summed_loss: Loss) -> Rows:
    """Makes the table. Paths begin at the input, or at the output of the first stage.

    Args:
        stages: at least one has forks.
        origin: what is read.
    """
    first, *rest = stages
    if not first.forks:
        (_, x_E), origin, stages = run_stages([first], x_E), first.name, rest
    g_KE = gradients_by_length(stages, x_E, summed_loss).flatten(1)
    total_E = g_KE.sum(0)
    scale = float(g_KE.abs().max())
    num_forks = len(g_KE) - 1
    lengths = range(num_forks + 1)
    # Numbers near 1: squares of 1e-200 would be 0.
    scaled_KE, scaled_E = g_KE / scale, total_E / scale
    share_K = (scaled_KE @ scaled_E) / scaled_E.square().sum()
    rms_K = scaled_KE.square().mean(1).sqrt() * scale if scale else g_KE.abs().amax(1)
    has_gradient = np.full(len(lengths), bool(scaled_E.square().sum() > 0))
    return Rows(
        "paths",
        {
            "step": [0] * len(lengths),
            "name": [origin] * len(lengths),
            "length": list(lengths),
            "share": Floats(share_K.numpy(), has_gradient),
            "delta_rms": Floats(rms_K.numpy()),
            "binomial": Floats(np.array([binomial_weight(num_forks, k) for k in lengths])),
        },
    )


def binomial_weight(num_forks: int, length: int) -> float:
    """C(n, k) / 2^n."""
    return math.comb(num_forks, length) / (1 << num_forks)


def gradients_by_length(stages: Sequence[Stage], x_E: Tensor, summed_loss: Loss) -> Tensor:
    """Computes the gradient by x of paths of each length, [K, E, ...]."""
    maps: list[Map] = [part for stage in stages for part in stage.forks or (stage.run,)]
    with torch.no_grad():
        handed_on = [x_E]
        for part in maps:
            handed_on.append(part(handed_on[-1]))
    out = handed_on.pop().requires_grad_()
    with torch.enable_grad():
        (g_E,) = torch.autograd.grad(summed_loss(out), out)
    g_KE = g_E[None]
    for part, x_E in zip(reversed(maps), reversed(handed_on), strict=True):
        g_KE = _through_fork(part, x_E, g_KE) if isinstance(part, Fork) else _back(part, x_E, g_KE)
    return g_KE


def _through_fork(fork: Fork, x_E: Tensor, g_KE: Tensor) -> Tensor:
    """[K + 1, E, ...]: path^T g + t branch^T g, by powers of t."""
    with torch.no_grad():
        sum_E = fork.path(x_E) + fork.branch(x_E)
    g_KE = _back(fork.after, sum_E, g_KE)
    by_path_KE, by_branch_KE = _back(fork.path, x_E, g_KE), _back(fork.branch, x_E, g_KE)
    none_1E = torch.zeros_like(by_path_KE[:1])
    return torch.cat((by_path_KE, none_1E)) + torch.cat((none_1E, by_branch_KE))


def _back(run: Map, x_E: Tensor, g_KE: Tensor) -> Tensor:
    """J^T g of each example's Jacobian and each of its K vectors."""
    parts = []
    for some_KE in torch.split(g_KE, max(1, _ROWS // len(x_E))):
        num_copies = len(some_KE)
        copies = x_E.repeat(num_copies, *[1] * (x_E.ndim - 1)).requires_grad_()
        with torch.enable_grad():
            # A view, since a map may be the identity, and an input is not its own output's.
            made = run(copies.view_as(copies))
            (back,) = torch.autograd.grad(made, copies, some_KE.flatten(0, 1))
        parts.append(back.view(num_copies, *x_E.shape))
    return torch.cat(parts)
