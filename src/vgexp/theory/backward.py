"""Computes mean squares of N dL/dz through a perceptron of large width, from the read-out back.

The weights on the way back are taken to be independent of those on the way forward, which is right
to leading order in the width (Yang 2020). With D the mean square over a layer's units, J_l the mean
of phi'^2 with what dropout and a norm between z and phi do, and the numbers of `Mix`:

    chi_l = num_units_{l+1} Var(W_{l+1}) J_l,      D_l = D_{l+1} (backward chi_l + carried)

dense: every later layer reads h_l, and D_l = J_l sum_{k>l} num_units_k Var(W_k) D_k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vgexp.skips import SKIPS
from vgexp.theory.forward import TINY, DrawnTogether, Hidden, Net, fourth
from vgexp.theory.sample import OutputGradient
from vgexp.theory.weights import Weight


@dataclass(frozen=True)
class Back:
    """Mean squares of dL/dz of one layer."""

    square_A: Tensor
    """D, with what a finite width adds since both passes use the same weights."""
    wide_A: Tensor
    """D in the limit of large width."""
    chi: float
    """Mean-square factor of the branch alone; 0 at the read-out."""
    factor: float
    """Mean-square factor of the whole block, D_l over D_{l+1}; 1 at the read-out."""
    carried: float
    """The part of the factor that passes beside the branch."""
    alike: float
    """Mean square cosine of dL/dz of different examples."""
    aligned: float = 0.0
    """Share of D, relative to the rest, that comes of z . dL/dz being of one sign."""
    together: float = 0.0
    """Correlation of dL/dz of different examples, with its sign: -1/(B - 1) where it sums to 0 over
    the batch, as behind a norm over it."""
    handed: float = 1.0
    """Share of what comes back to the layer before that passes this one; 1 but for dense."""


def backward(net: Net, layers: Sequence[Hidden], output: OutputGradient) -> list[Back]:
    """Computes dL/dz of all layers and the read-out, first to last."""
    found = [
        Back(
            output.square_A, output.square_A, 0.0, 1.0, 0.0, output.alike, together=output.together
        )
    ]
    joined_A = torch.zeros_like(output.square_A)
    joined_together = 0.0
    aligned_A = output.aligned_A
    less_A = torch.zeros_like(output.square_A)
    for index in range(len(layers) - 2, -1, -1):
        layer, following, after = layers[index], layers[index + 1], found[-1]
        made = layer.moments
        assert made is not None
        spread = following.weight.num_units * following.weight_variance
        is_last = index == len(layers) - 2
        if SKIPS[net.config.skip].concatenates and not is_last:
            came_A = spread * after.square_A
            joined_A = joined_A + came_A
            share = _mean(came_A) / max(_mean(joined_A), TINY)
            joined_together += (after.together - joined_together) * share
            found[-1] = replace(after, handed=share)
            back_A = made.back_at(joined_together)
            square_A, carried_A = back_A * joined_A, torch.zeros_like(joined_A)
            wide_A = square_A
            chi, aligned = spread * _mean(back_A), 0.0
        else:
            scaled_A = 1.0 if following.scaled_A is None else following.scaled_A
            chi_A = spread * made.back_at(after.together) * following.mix.backward * scaled_A
            carried_A = following.mix.carried * scaled_A * torch.ones_like(chi_A)
            square_A = after.square_A * (chi_A + carried_A)
            wide_A = after.wide_A * (chi_A + carried_A)
            aligned_A, beside_A = _aligned(layer, following, aligned_A)
            less_A, lost_A = _apart(layer, following, less_A, after.square_A * chi_A)
            beside = _mean(beside_A) / max(_mean(square_A), TINY)
            aligned = after.aligned + beside * (1 + after.aligned)
            square_A = (square_A + beside_A + lost_A).clamp(min=0)
            chi = _mean(chi_A)
        carried = _mean(carried_A)
        total = chi + carried
        alike = _alike(layer, following, after.alike, chi / total if total > 0 else 0.0)
        before = _mean(after.square_A)
        factor = _mean(square_A) / before if before > 0 else 0.0
        together = after.together * carried / total if total > 0 else 0.0
        if made.shared_A is not None and total > 0:
            together -= chi / total / max(net.groups.num_examples - 1, 1)
        found.append(Back(square_A, wide_A, chi, factor, carried, alike, aligned, together))
    return found[::-1]


def _aligned(layer: Hidden, following: Hidden, dots_A: Tensor) -> tuple[Tensor, Tensor]:
    """What is left out, to order 1/n, if weights of both passes are taken as independent.

    Given the branch b = W h, W is b h^T / |h|^2 and what is independent of both, so that W^T d has
    the part h (b . d) / |h|^2. A loss whose gradient looks at its outputs has e = z' . d of one
    sign at the read-out (p . z - z_y of softmax). With w the branch's share of the variance of z',
    b . d is w e, and d has the part z (1 - w) e / |z|^2 from beside. So D gains, of n units,

        (w^2 E phi'^2 phi^2 / (E phi^2)^2 + 2 w (1 - w) g / q) e^2 / n^2

    with g = E z phi phi' / E phi^2, and z . dL/dz is (1 - w + w g) e: unchanged of relu (g = 1),
    where each layer adds this anew, until dL/dz has grown by so much that its z . d is no more than
    usual. An orthogonal W keeps |d|, so that what lies along h is taken from the other directions:
    w^2 E phi'^2 / E phi^2 less, and dL/dz of a linear net stays as long as it was.

    Args:
        dots_A: mean square of z' . d, beyond that of vectors in no relation.

    Returns:
        The same of this layer, and what comes beside D.
    """
    if layer.norm is not None or following.is_fitted or following.scaled_A is not None:
        return torch.zeros_like(dots_A), torch.zeros_like(dots_A)
    kept_A, gained_A = _along(layer, following, dots_A)
    left_A = kept_A - layer.q_A * layer.weight.num_units * gained_A
    return left_A.clamp(min=0), gained_A


def _apart(
    layer: Hidden, following: Hidden, less_A: Tensor, branch_A: Tensor
) -> tuple[Tensor, Tensor]:
    """The same of z . dL/dz that phi' alone makes larger or smaller than usual.

    dL/dz = phi'(z) s with s independent of z has E (z . dL/dz)^2 = n E z^2 phi'^2 E s^2, which is
    1 + 2 d ln E phi'^2 / d ln q times that of vectors in no relation: less where phi' is small at
    large z, as tanh's, more of gelu and silu at small q. The weights below hand that on as
    `_aligned` says. Thirty tanh layers of 64 units: 20 % of D.

    Args:
        less_A: mean square of z' . d beyond that of vectors in no relation; it may be negative.
        branch_A: mean square of dL/dz that comes through the branch.

    Returns:
        The same of this layer, and what comes beside D.
    """
    if layer.norm is not None or following.is_fitted or following.scaled_A is not None:
        return torch.zeros_like(less_A), torch.zeros_like(less_A)
    assert layer.shape is not None
    kept_A, gained_A = _along(layer, following, less_A)
    usual_A = layer.q_A * layer.weight.num_units
    return kept_A + usual_A * (2 * layer.shape.back_by_q * branch_A - gained_A), gained_A


def _along(layer: Hidden, following: Hidden, dots_A: Tensor) -> tuple[Tensor, Tensor]:
    """What the part of W along h makes of z' . d: of z . dL/dz, and beside D."""
    made, shape = layer.moments, layer.shape
    assert made is not None
    assert shape is not None
    n, grown = layer.weight.num_units, shape.h_by_q
    branch_A = following.mix.branch * following.branch_A * following.of_weight
    share_A = branch_A / following.q_A.clamp(min=TINY)
    beside_A = following.mix.carried * layer.q_A / following.q_A.clamp(min=TINY)
    # E phi'^2 phi^2 / (E phi'^2 E phi^2), with what `shape` has taken off put back.
    together = shape.both[0] + 2 * shape.back_by_q * grown + 1
    own_A = (
        share_A**2 * (together - _taken(following.weight)) * made.slope_A / made.h_A.clamp(min=TINY)
    )
    met_A = 2 * share_A * beside_A * grown / layer.q_A.clamp(min=TINY)
    return dots_A * (beside_A + share_A * grown) ** 2, (own_A + met_A) * dots_A / n**2


def _taken(weight: Weight) -> float:
    """Share of what W^T d has along h that its other directions lack."""
    return min(1.0, weight.fan_in / weight.num_units) if weight.is_isometric else 0.0


def _alike(layer: Hidden, following: Hidden, alike: float, weight: float) -> float:
    """The mean square cosine of two examples' dL/dz, one layer further back.

    In the limit times the square of (weight E phi' phi' / E phi'^2 + 1 - weight). The n units there
    are bring random dot products beside it, and random lengths (`Drawn`), here of s = W^T delta
    times phi'; where W is orthogonal less what only Gaussian numbers bring.
    """
    assert layer.moments is not None
    assert layer.shape is not None
    shape, crossed = layer.shape, layer.moments.back_alike
    less = 1.0 if following.weight.keeps_backward else 0.0
    met, own = 2 * weight * (1 - weight), shape.kurtosis[1] * (1 + 2 * alike)
    spread_out = fourth(0.0, math.sqrt(alike))
    cubed = 3 * shape.cubed[0] / max(shape.crossed, 1e-6)
    drawn = DrawnTogether(
        weight**2 * (own - alike * crossed**2 - less * (1 + alike) * crossed**2)
        + met * (1 + alike),
        weight**2 * (cubed - 1 - 2 * less) + 2 * met,
        weight**2 * (3 * shape.kurtosis[0] - 1 - 2 * less) + 2 * met,
        weight**2 * (shape.kurtosis[1] * (1 + 2 * alike * spread_out) - 1 - 2 * less * alike)
        + 2 * met * alike * spread_out,
    )
    mean = math.sqrt(alike) * abs(weight * crossed + 1 - weight)
    return min(max(drawn.square(mean, layer.weight.num_units), 0.0), 1.0)


def _mean(x_A: Tensor) -> float:
    return float(x_A.mean())
