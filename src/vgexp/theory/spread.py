"""Computes how far nets of finite width lie from the limit: variances of logarithms.

To first order in 1/width. Of Gaussian weights s = W^T delta is Gaussian given delta, so that the
mean of phi'^2 s^2 over n units varies, relative to its mean, by (3 E phi'^4 / (E phi'^2)^2 - 1)/n:
5/n a layer for relu (Hanin & Nica 2018, beta with mu_4 = 3; the weights' own kurtosis enters at
1/n^2). Here that is split into what has causes of its own:

    s       2 kappa / n with kappa = E phi'^4 / (E phi'^2)^2; 2 (kappa - 1)/n of orthogonal W
    shape   of the units' distribution at a given mean of z^2 (`shapes.Shape`), which changes phi^2
            and phi'^2 at once
    scale   of the mean of z^2 itself, which is handed on: y = ln q moves by
            y_{l+1} = F' y_l + shape + fresh, and ln D_l by X' y_l on its way back

Every number is a pair: of one example with itself, and of two, where the correlations of z, of
phi'^2 and of dL/dz decide. What a batch's mean makes of both is said in `typical`.
With a skip the units persist: shape at one layer goes with shape at the next as z does (sqrt of the
carried share), and s meets the carried gradient (4 carried chi / n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vgexp.skips import SKIPS
from vgexp.theory.backward import Back
from vgexp.theory.forward import TINY, Hidden, Net, number
from vgexp.theory.sample import OutputGradient
from vgexp.theory.shapes import Shape

Two = tuple[float, float]
"""Of one example with itself, and of two."""


@dataclass(frozen=True)
class FirstOrder:
    """Variances of logarithms of mean squares over initialisations, to first order in 1/width."""

    preact: Two
    """Of z."""
    delta: Two
    """Of dL/dz, but for what the outputs alone make it vary by."""
    shift: float
    """What lsuv adds to the mean of dL/dz's logarithm."""


@dataclass(frozen=True)
class _SpreadStep:
    """What happens to y and D between a layer and the next."""

    shape: Shape
    num_units: int
    persistence: float
    """Correlation of z and the next z, unit by unit."""
    slope: float
    """F'."""
    squares: float
    """Weight of phi^2's shape in the next y."""
    fresh: Two
    """Variance of the rest of the next y."""
    slopes: float
    """Weight of phi'^2's shape in ln D."""
    by_y: float
    """X'."""
    backward: Two
    """Variance of ln D that s makes."""
    memory: float
    """Of what moved y before, the part that moves the next y beside y itself (dense)."""
    handed: float
    """Weight with which what moves D here goes on to the layers before."""
    inverse: bool
    """Whether the next y is held, and what would move it moves D the other way."""
    is_fitted: bool
    """Whether it is so by lsuv."""


def first_order(
    net: Net, layers: Sequence[Hidden], backs: Sequence[Back], output: OutputGradient
) -> list[FirstOrder]:
    """Of all layers and the read-out."""
    steps = [
        _step(net, layer, following, back, after)
        for layer, following, back, after in zip(
            layers[:-1], layers[1:], backs[:-1], backs[1:], strict=True
        )
    ]
    return [
        FirstOrder(preact, delta, shift)
        for preact, delta, shift in zip(
            _forward_variances(layers, steps),
            _backward_variances(layers, steps, output),
            _shifts(net, steps),
            strict=True,
        )
    ]


def _step(net: Net, layer: Hidden, following: Hidden, back: Back, after: Back) -> _SpreadStep:
    norm, num = layer.norm, layer.weight.num_units
    is_pre = norm is not None and net.config.norm_position == "pre"
    over_batch = norm is not None and norm.over_batch is not None
    shape = layer.shape
    assert shape is not None
    is_held = following.is_fitted or following.scaled_A is not None
    branch = number(following.mix.branch) * float(following.branch_A.mean())
    kept = number(following.mix.carried) * layer.q
    total = max(branch + kept, TINY)
    branch, kept = branch / total, kept / total
    share = branch * following.of_weight
    memory = 0.0
    if SKIPS[net.config.skip].concatenates and following.moments is not None:
        num_read = max(following.weight.fan_in // num, 1)
        memory, share = share * (1 - 1 / num_read), share / num_read
    weight = back.chi / max(back.chi + back.carried, TINY)
    by_q = 0.0 if over_batch else -1.0 if norm is not None else shape.back_by_q
    of_s = _of_s(following, shape, weight, after.alike, num)
    if over_batch and norm is not None:
        scales = 2 / max(norm.dimensions - 4, 1) / num
        of_s = of_s[0] + scales, of_s[1] + scales
    return _SpreadStep(
        shape=shape,
        num_units=num,
        persistence=math.sqrt(min(kept, 1.0)),
        slope=0.0 if is_held else (0.0 if norm is not None else share * shape.h_by_q) + kept,
        squares=share if norm is None or is_pre else 0.0,
        fresh=(0.0, 0.0)
        if following.moments is None and not following.is_fitted
        else _fresh(layer, following, branch, kept),
        slopes=weight,
        by_y=weight * by_q,
        backward=of_s,
        memory=memory,
        handed=back.handed,
        inverse=is_held,
        is_fitted=following.is_fitted,
    )


def _fresh(layer: Hidden, following: Hidden, share: float, kept: float) -> Two:
    """2 share^2/n of W h given h, none where W is orthogonal, and 4 share kept/n with z."""
    own = 0.0 if following.weight.keeps_forward else 2 * share**2
    num = following.weight.num_units
    return (own + 4 * share * kept) / num, (
        own * following.c_rms**2 + 4 * share * kept * layer.c_rms * following.c_rms
    ) / num


def _of_s(following: Hidden, shape: Shape, weight: float, alike: float, num: int) -> Two:
    """Of the square of s and of its product with what is carried."""
    less = 1.0 if following.weight.keeps_backward else 0.0
    crossed = 4 * weight * (1 - weight) / num
    return (
        2 * (shape.kurtosis[0] - less) * weight**2 / num + crossed,
        2 * alike * (shape.kurtosis[1] - less) * weight**2 / num + crossed * alike * shape.crossed,
    )


def _forward_variances(layers: Sequence[Hidden], steps: Sequence[_SpreadStep]) -> list[Two]:
    """Var y, of the first layer to the read-out.

    `handed_on` is the part of it that does not come of W h given h alone, `along` its covariance
    with the shape of phi^2, which persists with z.
    """
    first = layers[0]
    own = 0.0 if first.weight.keeps_forward or first.is_fitted else 2 / first.weight.num_units
    fresh: Two = own, own * first.c_rms**2
    handed_on: Two = 0.0, 0.0
    along: Two = 0.0, 0.0
    found = [fresh]
    for step, layer, following in zip(steps, layers[:-1], layers[1:], strict=True):
        if step.inverse:
            handed_on = fresh = along = 0.0, 0.0
        else:
            handed_on, along = _handed_on(step, handed_on, fresh, along)
            is_readout = following.moments is None
            fresh = _fresh(layer, following, 1.0, 0.0) if is_readout else step.fresh
        found.append((handed_on[0] + fresh[0], handed_on[1] + fresh[1]))
    return found


def _handed_on(step: _SpreadStep, before: Two, fresh: Two, along: Two) -> tuple[Two, Two]:
    slope, weight = step.slope + step.memory, step.squares
    shape = [variance / step.num_units for variance in step.shape.squares]
    variance = _two(
        lambda i: (
            slope**2 * before[i]
            + step.slope**2 * fresh[i]
            + 2 * slope * weight * along[i]
            + weight**2 * shape[i]
        )
    )
    return variance, _two(lambda i: step.persistence * (slope * along[i] + weight * shape[i]))


def _backward_variances(
    layers: Sequence[Hidden], steps: Sequence[_SpreadStep], output: OutputGradient
) -> list[Two]:
    """Var ln D, of the first layer to the read-out, but for what the outputs alone make it vary by.

    `by_y` is how all that follows moves with this layer's y, `at` how it moves with the shapes,
    `passed` the variance of what is independent of both.
    """
    scales = _forward_variances(layers, steps)
    last = steps[-1]
    at_end, _ = _handed_on(last, scales[-2], (0.0, 0.0), (0.0, 0.0))
    found: list[Two] = [_two(lambda i: 0.0 if last.inverse else output.log_slope**2 * at_end[i])]
    by_y, later = output.log_slope, (0.0, 0.0)
    passed: Two = 0.0, 0.0
    after: _SpreadStep | None = None
    for step, scale in zip(steps[::-1], scales[-2::-1], strict=True):
        if after is not None:
            passed = _with_shape(passed, after, later, 1 - step.persistence**2)
        moved = -1.0 if step.inverse else by_y
        squares = moved * step.squares + step.persistence * later[1]
        at = step.slopes + step.persistence * later[0], squares
        on = step.slopes * step.handed + step.persistence * later[0], squares
        by_later = (step.slope + step.memory) * by_y
        by_y = step.handed * step.by_y + by_later
        passed = _plus(passed, step.fresh, moved**2)
        own = _plus(_with_shape(passed, step, at, 1.0), step.backward, 1.0)
        found.append(_plus(own, scale, (step.by_y + by_later) ** 2))
        passed = _plus(passed, step.backward, step.handed**2)
        later, after = on, step
    return found[::-1]


def _shifts(net: Net, steps: Sequence[_SpreadStep]) -> list[float]:
    """What lsuv adds to the mean of ln D: it divides by what fluctuates, which makes D larger on
    average by the variance of that, less its covariance with phi'^2's mean."""
    found = [0.0]
    share = 1 / net.groups.num_examples
    for step in steps[::-1]:
        shape = step.shape
        gained = [
            fresh + (step.squares**2 * squares - step.squares * step.slopes * both) / step.num_units
            for fresh, squares, both in zip(step.fresh, shape.squares, shape.both, strict=True)
        ]
        more = max(share * gained[0] + (1 - share) * gained[1], 0.0)
        found.append(found[-1] + (more if step.is_fitted else 0.0))
    return found[::-1]


def _with_shape(variance: Two, step: _SpreadStep, at: Two, share: float) -> Two:
    return _plus(variance, _two(lambda i: _of_shape(step, at, i)), share)


def _plus(variance: Two, more: Two, factor: float) -> Two:
    return variance[0] + factor * more[0], variance[1] + factor * more[1]


def _of_shape(step: _SpreadStep, at: Two, i: int) -> float:
    """Variance of a combination of phi'^2's and phi^2's shape."""
    shape = step.shape
    slopes, squares, both = shape.slopes[i], shape.squares[i], shape.both[i]
    return (at[0] ** 2 * slopes + 2 * at[0] * at[1] * both + at[1] ** 2 * squares) / step.num_units


def _two(f: Callable[[int], float]) -> Two:
    return f(0), f(1)
