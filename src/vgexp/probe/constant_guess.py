"""What the best constant answer costs, by the definition of a loss, from targets alone.

Targets are pooled as [R, C]: R rows, and C columns of which each may be answered by a number of its
own; labels as counts [K] of K classes. Everything is in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_HALVINGS = 60
"""Steps of a bisection, after which nothing of a float64 is left to find."""
_LEAST_PER_CLASS = 10
"""Labels a class that there must be, to tell how frequent classes are."""


def of_labels(counts: Numbers, *, smoothing: float = 0.0, weights: Numbers | None = None) -> float:
    """The entropy of the labels, without what few labels make it too small (Miller & Madow 1955).

    Args:
        smoothing: share of each label that is spread over all classes.
        weights: of the classes [K], as a weighted mean has them.
    """
    num, seen = counts.sum(), int((counts > 0).sum())
    if num < _LEAST_PER_CLASS * seen:
        return np.nan
    share = counts * (1.0 if weights is None else weights)
    share = share / share.sum()
    share = (1 - smoothing) * share + smoothing / counts.size
    return float(_entropy(share) + (seen - 1) / (2 * num) * (1 - smoothing))


def of_focal_labels(counts: Numbers, gamma: float) -> float:
    """min over p of -sum f_k (1 - p_k)^gamma ln p_k, for the frequencies f (Lin et al. 2017).

    Every term is convex, so that at the minimum all f_k times its slope are alike: the multiplier
    and, for each, the p are found by bisection.
    """
    num, seen = counts.sum(), int((counts > 0).sum())
    if num < _LEAST_PER_CLASS * seen:
        return np.nan
    share = counts[counts > 0] / num
    if seen == 1:
        return 0.0

    def answers(multiplier: float) -> Numbers:
        low, high = np.full(seen, 1e-12), np.full(seen, 1 - 1e-12)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            is_low = share * _focal_slope(middle, gamma) < -multiplier
            low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
        return low

    least, most = 1e-12, 1e12  # the sum of answers falls as the multiplier grows
    for _ in range(2 * _HALVINGS):
        middle = float(np.sqrt(least * most))
        if answers(middle).sum() > 1:
            least = middle
        else:
            most = middle
    p = answers(most)
    p = p / p.sum()
    return float(-(share * (1 - p) ** gamma * np.log(p)).sum())


def _focal_slope(p: Numbers, gamma: float) -> Numbers:
    slope: Numbers = gamma * (1 - p) ** (gamma - 1) * np.log(p) - (1 - p) ** gamma / p
    return slope


def of_squares(targets: Numbers) -> float:
    """The variance of all entries: one number answers them all."""
    return float(targets.var())


def of_distances(targets: Numbers) -> float:
    """The mean distance to the median of a column."""
    return float(np.abs(targets - np.median(targets, axis=0)).mean())


def of_huber(targets: Numbers, delta: float) -> float:
    """Squares over 2 up to a distance delta, and delta times the distance beyond."""
    low, high = targets.min(0), targets.max(0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_low = np.clip(middle - targets, -delta, delta).sum(0) < 0
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    apart = np.abs(targets - (low + high) / 2)
    costs = np.where(apart <= delta, apart**2 / 2, delta * (apart - delta / 2))
    return float(costs.mean())


def of_smooth(targets: Numbers, beta: float) -> float:
    """As `of_huber`, over beta: torch's smooth L1."""
    return of_huber(targets, beta) / beta


def of_binary(targets: Numbers, positive: Numbers | float = 1.0) -> float:
    """-w t ln p - (1 - t) ln(1 - p), which is least where p = w t / (w t + 1 - t) of the mean t."""
    share = targets.mean(0)
    ones, zeros = positive * share, 1 - share
    p = ones / (ones + zeros)
    return float(-(_times_log(ones, p) + _times_log(zeros, 1 - p)).mean())


def of_binary_focal(targets: Numbers, gamma: float, alpha: float | None) -> float:
    """a t (1 - p)^gamma (-ln p) + (1 - a) (1 - t) p^gamma (-ln(1 - p)): convex in ln p/(1 - p)
    where it is least, which is looked for."""
    share = targets.mean(0)
    of_ones, of_zeros = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)

    def costs(z: Numbers) -> Numbers:
        p = 1 / (1 + np.exp(-z))
        one: Numbers = -of_ones * share * (1 - p) ** gamma * np.log(p)
        both: Numbers = one - of_zeros * (1 - share) * p**gamma * np.log1p(-p)
        return both

    low, high = np.full(share.shape, -30.0), np.full(share.shape, 30.0)
    for _ in range(2 * _HALVINGS):
        first, second = (2 * low + high) / 3, (low + 2 * high) / 3
        is_low = costs(first) > costs(second)
        low, high = np.where(is_low, first, low), np.where(is_low, high, second)
    return float(costs((low + high) / 2).mean())


def of_divergence(targets: Numbers) -> float:
    """t (ln t - ln q) over all entries, for rows t of probabilities and the best row q: their
    mean."""
    own = _times_log(targets, targets).mean(0)
    mean = targets.mean(0)
    return float((own - _times_log(mean, mean)).mean())


def of_shares(targets: Numbers) -> float:
    """The cross-entropy of rows of probabilities, a row: the entropy of their mean."""
    return _entropy(targets.mean(0))


def of_counts(targets: Numbers) -> float:
    """exp(c) - t c, the Poisson likelihood of a logarithm c, which is least at ln of the mean."""
    mean = targets.mean(0)
    return float((mean - _times_log(mean, mean)).mean())


def of_hinge(targets: Numbers) -> float:
    """max(0, 1 - t c) for targets of -1 and 1, which is least at one of its kinks."""
    costs = [np.maximum(0, 1 - targets * c).mean(0) for c in (-1.0, 1.0)]
    return float(np.minimum(*costs).mean())


def of_soft_margin(targets: Numbers) -> float:
    """ln(1 + exp(-t c)) for targets of -1 and 1: the entropy of their shares."""
    return of_binary((targets + 1) / 2)


Guess = Callable[[Numbers], float]


def _entropy(share: Numbers) -> float:
    return float(-_times_log(share, share).sum())


def _times_log(x: Numbers, p: Numbers) -> Numbers:
    """x ln p, which is 0 where x is."""
    with np.errstate(all="ignore"):
        product: Numbers = np.where(x == 0, 0.0, x * np.log(p))
    return product
