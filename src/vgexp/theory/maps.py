"""Mean-field theory of a plain net of infinite width: maps of variances and correlations, their
fixed points, chi, depth scales, the edge of chaos (Poole 2016; Schoenholz 2017).

z_{l+1} = W phi(z_l) + b, the entries of W with variance sigma_w^2 / fan_in, of b with sigma_b^2:

    q_{l+1} = sigma_w^2 E phi(u)^2 + sigma_b^2,                u ~ N(0, q_l)      (Poole 2016)
    r_{l+1} = sigma_w^2 E phi(u) phi(v) + sigma_b^2,           c = r / q          (Poole 2016)
    chi     = sigma_w^2 E phi'(u)^2                                               (Poole 2016)

q is z's second moment, also where phi has a mean. chi is the mean-square factor of dL/dz from a
layer to the one before, sqrt(chi) the amplitude's; and the slope of the correlation map at c = 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from vgexp.theory.function import Function

SMALLEST, LARGEST = 1e-12, 1e6
"""The least and largest variance of fixed points that are searched."""
_GRID = 181
_ROUNDING = 1e-9
_NEAR_0 = (1e-6, 1e-4, 1e-2)
"""Variances at which a growth from 0 is detected."""


@dataclass(frozen=True)
class Plain:
    """A layer of a plain net: its activation and the variances of its parameters."""

    phi: Function
    weight_variance: float
    """sigma_w^2: fan_in times the variance of an entry."""
    bias_variance: float = 0.0
    """sigma_b^2."""
    keep: float = 1.0
    """Share of units that dropout keeps, h divided by it; `weight_variance` is over it already.
    Masks of two examples are independent, so that their covariance is not (Schoenholz 2017)."""

    def variance(self, q_A: Tensor) -> Tensor:
        """The next q."""
        return self.weight_variance * self.phi.square(q_A) + self.bias_variance

    def variance_slope(self, q: float) -> float:
        """d(next q)/dq = sigma_w^2 E phi phi' u / q."""
        phi = self.phi
        mean = phi.mean(lambda u: phi.value(u) * phi.slope(u) * u, _one(q))
        return self.weight_variance * float(mean) / q

    def chi(self, q: float) -> float:
        """sigma_w^2 E phi'^2."""
        return self.weight_variance * float(self.phi.slope_square(_one(q)))

    def correlation(self, c: float, q: float, next_q: float | None = None) -> float:
        """The next c of two examples of variance q."""
        phi = self.phi
        product = phi.mean_product(phi.value, phi.value, (q, q), c)
        covariance = self.weight_variance * self.keep * product + self.bias_variance
        return covariance / (float(self.variance(_one(q))) if next_q is None else next_q)

    def correlation_slope(self, c: float, q: float) -> float:
        """d(next c)/dc at a fixed q = sigma_w^2 E phi'(u) phi'(v) (times q over the next q)."""
        phi = self.phi
        product = phi.mean_product(phi.slope, phi.slope, (q, q), c)
        return self.weight_variance * self.keep * product * q / float(self.variance(_one(q)))


@dataclass(frozen=True)
class FixedPoint:
    """The limits of variance and correlation in a deep plain net, and how fast they are reached."""

    plain: Plain
    q: float
    """q*; 0 where the variance dies out, inf where it grows without bound (or past 1e6)."""
    chi: float
    """Mean-square backward factor a layer at q*."""
    xi_q: float | None
    """Layers in which a deviation of q falls by e; inf where it does not; None as `c`."""

    @cached_property
    def c(self) -> float | None:
        """c*: 1 in the ordered phase, below 1 in the chaotic; None where q* is 0 or inf.

        Taken when it is asked for: integrals in the plane take the longest.
        """
        if self.xi_q is None:
            return None
        is_ordered = self.plain.keep == 1 and self.chi <= 1 + _ROUNDING
        return 1.0 if is_ordered else _correlation_rest(self.plain, self.q)

    @cached_property
    def xi_c(self) -> float | None:
        """Layers in which a deviation of c falls by e (Schoenholz 2017); None as `c`."""
        if self.c is None:
            return None
        is_one = self.c == 1.0
        return _depth_scale(self.chi if is_one else self.plain.correlation_slope(self.c, self.q))

    @property
    def xi_gradient(self) -> float:
        """Layers in which the mean square of dL/dz changes by e: -1 / ln chi; negative where it
        grows, inf where chi is 1 (Schoenholz 2017)."""
        return _depth_scale(self.chi, signed=True)


@lru_cache(maxsize=64)
def fixed_point(plain: Plain, start: float = 1.0) -> FixedPoint:
    """Finds the fixed point that a net with a first q of `start` reaches; kept for the next run."""
    q = _rest(plain, start)
    if q <= 0 or math.isinf(q):
        at = SMALLEST if q <= 0 else LARGEST
        return FixedPoint(plain, q, plain.chi(at), None)
    return FixedPoint(plain, q, plain.chi(q), _depth_scale(plain.variance_slope(q)))


@lru_cache(maxsize=64)
def critical_weight_variance(phi: Function, bias_variance: float = 0.0) -> tuple[float, float]:
    """The edge of chaos: sigma_w^2 at which chi is 1 at the fixed point, and that q*.

    chi = 1 makes sigma_w^2 = 1 / E phi'^2 a function of q*, and sigma_b^2 = q* - E phi^2 / E phi'^2
    (after Poole 2016). Of a scale-free phi (relu) every q is one where sigma_b is 0, and
    none otherwise: q* is then 1 or inf. Where q* is 0 (tanh without biases), the limit. Of several
    the smallest q* that the variance does not leave.

    Raises:
        ValueError: chi is 1 at no fixed point between 1e-12 and 1e6, or at none that is stable.
    """
    q_A = _grid()
    slope_A = phi.slope_square(q_A)
    needed_A = q_A - phi.square(q_A) / slope_A
    if bool((needed_A.abs() <= _ROUNDING * q_A).all()):
        return 1 / float(slope_A[0]), math.inf if bias_variance else 1.0
    is_from_0 = not bias_variance and bool(needed_A[0].abs() <= _ROUNDING * q_A[0])
    at_0 = (0.0,) if is_from_0 else ()
    found = False
    for q in itertools.chain(at_0, _crossings(phi, bias_variance, q_A, needed_A)):
        weight, found = 1 / float(phi.slope_square(_one(q or SMALLEST))), True
        if _is_stable(Plain(phi, weight, bias_variance), q):
            return weight, q
    kind = "stable " if found else ""
    raise ValueError(f"chi is 1 at no {kind}fixed point of the variance between 1e-12 and 1e6")


def _crossings(
    phi: Function, bias_variance: float, q_A: Tensor, needed_A: Tensor
) -> Iterator[float]:
    """Where the bias variance that is needed passes the one there is, by more than rounding."""

    def excess(q: float) -> float:
        at = _one(q)
        return q - float(phi.square(at) / phi.slope_square(at)) - bias_variance

    over_A = needed_A - bias_variance
    clear = (over_A.abs() > _ROUNDING * q_A).nonzero().flatten().tolist()
    for i, j in itertools.pairwise(clear):
        if bool(over_A[i] > 0) != bool(over_A[j] > 0):
            yield _root(excess, float(q_A[i]), float(q_A[j]))


def _is_stable(plain: Plain, q: float) -> bool:
    """Whether the variance stays near a fixed point: at 0 that it does not grow from there."""
    if q > 0:
        return plain.variance_slope(q) <= 1 + _ROUNDING
    near_A = torch.tensor(_NEAR_0, dtype=torch.float64)
    return bool((plain.variance(near_A) <= near_A * (1 + _ROUNDING)).all())


def _rest(plain: Plain, start: float) -> float:
    """Where q goes from `start`: the next zero of (next q) - q in the direction in which it sets
    off, which a rising map cannot jump."""
    q_A = torch.cat((_grid(), _one(start))).sort().values
    growth_A = plain.variance(q_A) - q_A
    still_A = growth_A.abs() <= _ROUNDING * q_A
    at = int((q_A - start).abs().argmin())
    if bool(still_A[at]):
        return start
    step = 1 if float(growth_A[at]) > 0 else -1
    i = at
    while 0 <= i + step < len(q_A):
        i += step
        if float(growth_A[i]) * step <= 0:
            ends = sorted((float(q_A[i - step]), float(q_A[i])))
            return _root(lambda q: float(plain.variance(_one(q))) - q, *ends)
    return math.inf if step > 0 else 0.0


def _correlation_rest(plain: Plain, q: float) -> float:
    """c* below 1 of the chaotic phase: the map is convex on [0, 1] and crosses c once there."""

    def excess(c: float) -> float:
        return plain.correlation(c, q, q) - c

    if excess(0.0) <= _ROUNDING:
        return 0.0
    near = 1 - 1e-3
    while excess(near) > 0 and near < 1 - 1e-13:
        near = 1 - (1 - near) / 10
    return 1.0 if near >= 1 - 1e-13 else _root(excess, 0.0, near)


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    """A zero between two ends of opposite sign, by bisection, to a part in 1e15."""
    sign = f(low) > 0
    for _ in range(200):
        middle = math.sqrt(low * high) if low > 0 and high / low > 2 else (low + high) / 2
        if middle in (low, high) or high - low <= 1e-15 * high:
            break
        if (f(middle) > 0) == sign:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _depth_scale(rate: float, *, signed: bool = False) -> float:
    """-1 / ln(rate); inf where the rate is 1 (unsigned: or above), 0 where it is 0."""
    if rate <= 0:
        return 0.0
    if abs(rate - 1) <= _ROUNDING or (rate > 1 and not signed):
        return math.inf
    return -1 / math.log(rate)


def _grid() -> Tensor:
    ends = math.log10(SMALLEST), math.log10(LARGEST)
    return torch.logspace(*ends, _GRID, dtype=torch.float64)


def _one(q: float) -> Tensor:
    return torch.tensor([q], dtype=torch.float64)
