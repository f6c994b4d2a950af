"""Follows one example's mean squares through a plain net of finite width, as a Markov chain.

Given h, the units of the next z are independent Gaussian numbers whose variance is q' = fan_in
Var(W) mean(h^2) + Var(b), of n units: the next q depends on this one alone. Its mean is the map of
large width, its relative variance v = (E phi^4 / (E phi^2)^2 - 1)/n, and it is close to a gamma
variable, so that ln q' has the mean psi(1/v) + ln v and the variance psi'(1/v). The density of ln q
is followed on a grid: where the map of q bends much over its width (gelu and silu, whose signal
dies out at small q and lives at large) first order in 1/n is not enough, and this is. On the way
back ln D gains the logarithm of a mean of phi'^2 s^2 over units, which goes along with the next q.

What weights on both ways have in common is left to `backward`.

Axes: A groups of examples, G and H points of a layer's grid and the next one's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vgexp.skips import SKIPS
from vgexp.theory.fluctuations import fluctuations
from vgexp.theory.forward import Hidden, Net
from vgexp.theory.tables import squares, table

_POINTS = 129
_REACH = 5.0
"""How many standard deviations of a step a grid covers."""
_RARE = 1e-9
"""Grid points are dropped whose density, relative to the largest, is below this."""
_SHARPEST = 0.6
"""The smallest standard deviation of a step, in distances of the grid."""
_FEWEST = 1e-12
"""A smaller variance is taken as 0."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Points and values of a function that is linear between them and constant beyond."""


@dataclass(frozen=True)
class Logs:
    """ln of one example's mean square at a layer, over initialisations; [A]."""

    mean_A: Tensor
    variance_A: Tensor
    of_mean_A: Tensor
    """ln of the mean itself."""
    wide_A: Tensor
    """In the limit of large width."""


@dataclass(frozen=True)
class ChainLayer:
    """A layer's q from the forward pass, and D relative to the read-out's at its expected q."""

    q: Logs
    D: Logs


@dataclass(frozen=True)
class _ChainStep:
    """The step from the points of a grid to those of the next."""

    following_H: Tensor
    next_G: Tensor
    """ln of the mean of the next q."""
    shape_G: Tensor
    """Of the gamma variable that it is: 1 over its relative variance."""
    gained_G: Tensor
    """ln of the mean of D's factor."""
    log_gained_G: Tensor
    """Mean of its ln."""
    variance_G: Tensor
    """Of its ln."""
    covariance_G: Tensor
    """Of its ln and the next ln q."""

    def transition(self, along_G: Tensor | float = 0.0) -> Tensor:
        """[G, H]: probabilities of the next grid's points, weighted with q^along and normed."""
        away = self.following_H - self.next_G[:, None]
        shape = self.shape_G[:, None]
        tilted = shape + (along_G[:, None] if isinstance(along_G, Tensor) else along_G)
        density = torch.exp(tilted * away - shape * (away.exp() - 1))
        return density / density.sum(1, keepdim=True).clamp(min=1e-300)


def chain(net: Net, layers: Sequence[Hidden], output: Curve) -> list[ChainLayer] | None:
    """All layers and the read-out; None for nets that are no plain chain, or where a number is not
    finite.

    Args:
        output: ln of the mean square of dL/dz at the read-out over that at its expected q, of
            differences of ln q.
    """
    if not _is_plain(net, layers):
        return None
    steps: list[_ChainStep] = []
    place_G, p_AG = _start(layers[0].q_A.log())
    places, densities = [place_G], [p_AG]
    for layer, following in itertools.pairwise(layers):
        step = _step(net, layer, following, place_G, p_AG)
        place_G, p_AG = step.following_H, p_AG @ step.transition()
        p_AG = p_AG / p_AG.sum(1, keepdim=True).clamp(min=1e-300)
        steps.append(step)
        places.append(place_G)
        densities.append(p_AG)
    forth = [
        Logs(*_moments(p_AG, at_G, torch.zeros_like(at_G), at_G), layer.q_A.log())
        for p_AG, at_G, layer in zip(densities, places, layers, strict=True)
    ]
    back = _back(layers, steps, places[-1], densities, output)
    found = [ChainLayer(q, D) for q, D in zip(forth, back, strict=True)]
    return found if all(_is_finite(layer) for layer in found) else None


def _is_plain(net: Net, layers: Sequence[Hidden]) -> bool:
    config = net.config
    return (
        not SKIPS[config.skip].joins
        and net.statistics is None
        and not any(layer.is_fitted for layer in layers)
        and all(bool((layer.q_A > 0).all() and layer.q_A.isfinite().all()) for layer in layers)
        and (net.means.phi.is_homogeneous or table(net.means.phi) is not None)
    )


def _start(log_A: Tensor) -> tuple[Tensor, Tensor]:
    """A grid over the first variances, which do not fluctuate, and each group's place on it."""
    low, high = float(log_A.min()), float(log_A.max())
    room = max(high - low, 1e-3) * 0.01
    place_G = torch.linspace(low - room, high + room, _POINTS, dtype=torch.float64)
    at_A = (log_A - place_G[0]) / (place_G[1] - place_G[0])
    index_A = at_A.long().clamp(max=_POINTS - 2)
    p_AG = torch.zeros(len(log_A), _POINTS, dtype=torch.float64)
    upper_A = (at_A - index_A)[:, None]
    p_AG.scatter_(1, index_A[:, None], 1 - upper_A).scatter_(1, index_A[:, None] + 1, upper_A)
    return place_G, p_AG


def _step(net: Net, layer: Hidden, following: Hidden, place_G: Tensor, p_AG: Tensor) -> _ChainStep:
    phi, keep, n = net.means.phi, net.means.keep, layer.weight.num_units
    q_G = place_G.exp().clamp(1e-290, 1e290)
    of_all = None if phi.is_homogeneous else table(phi)
    h_G, slope_G = squares(phi, q_G) if of_all is None else of_all(q_G)
    weight, variance = following.weight, following.weight_variance
    made_G = weight.fan_in * variance * h_G / keep
    next_G = made_G + weight.bias_variance
    share_G = made_G / next_G
    # An orthogonal W leaves the mean of z^2 no room, a W that follows none to the length of s.
    by, held = fluctuations(phi, q_G), 2.0 if layer.weight.keeps_forward else 0.0
    less = 2.0 if weight.keeps_backward else 0.0
    own_G = share_G**2 * (by.square / keep - 1 - held * by.h_by_q**2) / n
    back_G = (3 * by.slope / keep - 1 - held * by.back_by_q**2 - less) / n
    both_G = share_G * (by.both / keep - 1 - held * by.h_by_q * by.back_by_q) / n
    log_back_G, spread_back_G = _of_gamma(back_G)
    log_G, spread_G = _of_gamma(own_G)
    mean_G, deviation_G = next_G.log() + log_G, spread_G.sqrt()
    counts_G = (p_AG > _RARE * p_AG.max()).any(0)
    low = float((mean_G - _REACH * deviation_G)[counts_G].min())
    high = max(float((mean_G + _REACH * deviation_G)[counts_G].max()), low + 1e-6)
    following_H = torch.linspace(low, high, _POINTS, dtype=torch.float64)
    sharpest = (_SHARPEST * (high - low) / (_POINTS - 1)) ** 2
    gained_G = (weight.num_units * variance * slope_G / keep).log()
    return _ChainStep(
        following_H, next_G.log(), 1 / own_G.clamp(min=sharpest), gained_G, gained_G + log_back_G,
        spread_back_G, both_G.clamp(-1, 1),
    )  # fmt: skip


def _of_gamma(variance_G: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of ln of a gamma variable of mean 1."""
    shape_G = 1 / variance_G.clamp(min=_FEWEST)
    return torch.digamma(shape_G) - shape_G.log(), torch.polygamma(1, shape_G)


def _back(
    layers: Sequence[Hidden],
    steps: Sequence[_ChainStep],
    last_G: Tensor,
    densities: Sequence[Tensor],
    output: Curve,
) -> list[Logs]:
    """ln D of every layer: its mean and variance given q, and ln of its mean, from the read-out."""
    mean_G = _between(output, last_G - math.log(layers[-1].q))
    of_mean_G, variance_G = mean_G, torch.zeros_like(mean_G)
    wide_A = _between(output, layers[-1].q_A.log() - math.log(layers[-1].q))
    found = [Logs(*_moments(densities[-1], mean_G, variance_G, of_mean_G), wide_A)]
    for index in range(len(steps) - 1, -1, -1):
        step, made, following = steps[index], layers[index].moments, layers[index + 1]
        assert made is not None
        next_GH = step.transition()
        expected_G, place_G = next_GH @ mean_G, next_GH @ step.following_H
        squared_G = next_GH @ mean_G.square() - expected_G.square()
        along_G = next_GH @ (mean_G * step.following_H) - expected_G * place_G
        slope_G = step.covariance_G * step.shape_G
        variance_G = next_GH @ variance_G + squared_G + 2 * slope_G * along_G + step.variance_G
        variance_G, mean_G = variance_G.clamp(min=0), expected_G + step.log_gained_G
        top = of_mean_G.max()
        tilted_GH = step.transition(slope_G)
        of_mean_G = (tilted_GH @ (of_mean_G - top).exp()).log() + top + step.gained_G
        spread = following.weight.num_units * following.weight_variance
        wide_A = wide_A + (spread * made.back_A).log()
        found.append(Logs(*_moments(densities[index], mean_G, variance_G, of_mean_G), wide_A))
    return found[::-1]


def _moments(
    p_AG: Tensor, mean_G: Tensor, variance_G: Tensor, of_mean_G: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    mean_A = p_AG @ mean_G
    apart_AG = (mean_G - mean_A[:, None]).square()
    top = of_mean_G.max()
    return (
        mean_A,
        p_AG @ variance_G + (p_AG * apart_AG).sum(1),
        (p_AG @ (of_mean_G - top).exp()).log() + top,
    )


def _between(curve: Curve, at_G: Tensor) -> Tensor:
    places, values = (torch.tensor(side, dtype=torch.float64) for side in curve)
    at_G = at_G.clamp(float(places[0]), float(places[-1]))
    index_G = torch.searchsorted(places, at_G, right=True).clamp(1, len(places) - 1)
    low, high = places[index_G - 1], places[index_G]
    return torch.lerp(values[index_G - 1], values[index_G], (at_G - low) / (high - low))


def _is_finite(layer: ChainLayer) -> bool:
    numbers = [*vars(layer.q).values(), *vars(layer.D).values()]
    return all(bool(values.isfinite().all()) for values in numbers)
