"""Computes mean and variance of the logarithm of a mean of lognormal numbers, of any spread.

S = mean of e^(s g) over B independent standard normal g. Where s^2 is small against 2 ln B, ln S is
near s^2/2 and hardly varies; where it is large, a few of the numbers are nearly all of S, and ln S
stays far below s^2/2 (of B numbers none is larger than about e^(s sqrt(2 ln B))), as in Derrida's
random energy model. With T exponential of mean 1, P(T / S > t) = E e^(-t S) =
(E e^(-t e^(s g) / B))^B, so that ln T - ln S has a known distribution; of ln T the mean is minus
Euler's constant and the variance pi^2 / 6.

Axes: S spreads of a table, X points of ln t, N nodes of g.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_SPREADS, _LARGEST = 32, 20.0
_EULER = 0.5772156649015329
_NODES = torch.linspace(-8.0, 8.0, 241, dtype=torch.float64)


def log_of_mean(variance: float, count: int) -> tuple[float, float]:
    """Interpolates mean and variance of ln S at s^2 = variance and B = count, to 1e-3 of s^2."""
    s = math.sqrt(max(variance, 0.0))
    if count == 1 or s == 0 or not math.isfinite(s):
        return 0.0, variance
    place = min(math.sqrt(s / _LARGEST) * (_SPREADS - 1), _SPREADS - 1.0)
    index = min(int(place), _SPREADS - 2)
    low, high = _table(count)[index : index + 2].tolist()
    part = place - index
    mean, own = (a + part * (b - a) for a, b in zip(low, high, strict=True))
    return mean * variance, own * variance


@lru_cache(maxsize=16)
def _table(count: int) -> Tensor:
    """[S, 2]: mean and variance over s^2, of s as squares of equal steps."""
    rows = [_row(_LARGEST * (index / (_SPREADS - 1)) ** 2, count) for index in range(1, _SPREADS)]
    at_0 = [(1 - 1 / count) / 2, 1 / count]
    return torch.tensor([at_0, *rows], dtype=torch.float64)


def _row(s: float, count: int) -> list[float]:
    reach = 6 * s
    x_X = torch.linspace(-reach - 35, reach + 6, 500, dtype=torch.float64)
    weight_N = torch.exp(-_NODES.square() / 2)
    exponent_XN = torch.exp(x_X[:, None] + s * _NODES - math.log(count))
    kept_X = (torch.exp(-exponent_XN) @ (weight_N / weight_N.sum())) ** count
    start, step = float(x_X[0]), float(x_X[1] - x_X[0])
    mean = start + float(torch.trapezoid(kept_X, x_X))
    # The trapezoidal rule's own error, of 2 x at the lower end.
    square = start**2 + float(torch.trapezoid(2 * x_X * kept_X, x_X)) + step**2 / 6
    own = square - mean**2 - math.pi**2 / 6
    return [(-_EULER - mean) / s**2, max(own, 0.0) / s**2]
