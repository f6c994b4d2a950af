"""Computes variances of z through a perceptron of large width, for given examples.

A: groups of examples of about one length. At initialisation the units of a layer are Gaussian,
independent of each other; z of an example has variance q, and of two examples, on average,
covariance r (all pairs are taken to have the mean one). By skip (`Mix`), with v the variance of the
branch W h + b:

    v_{l+1} = fan_in Var(W) E h_l^2 + Var(b),      q_{l+1} = branch v_{l+1} + carried q_l

and the same of covariances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from vgexp.config import MlpConfig
from vgexp.inits import LSUV_TOLERANCE, LSUV_TRIES
from vgexp.norms import EPS, NORMS, Statistics
from vgexp.skips import SKIPS, Mix
from vgexp.theory import moments
from vgexp.theory.batch import Kernel
from vgexp.theory.function import Function
from vgexp.theory.moments import Means, Moments, NormMoments
from vgexp.theory.quadrature import COARSE, Resolution, line
from vgexp.theory.sample import Lengths
from vgexp.theory.shapes import Shape
from vgexp.theory.weights import Weight

SMOOTH = Resolution(8, 2.0, (1.0, 2.0, 4.0, 8.0, 16.0, 32.0))
"""1e-7 of what a sigmoid makes."""
TINY = 1e-300
"""Keeps 0 / 0 at 0."""
_NO_MEAN = 1e-6
"""Correlation of h below which ratios to it are not taken."""


@dataclass(frozen=True)
class Hidden:
    """One hidden layer, or the read-out (without `moments`)."""

    weight: Weight
    weight_variance: float
    """Of its entries, after lsuv has scaled them."""
    is_fitted: bool
    """Whether lsuv scaled them."""
    branch_A: Tensor
    """v."""
    of_weight: float
    """The share of v that the weights make; the rest is the biases'."""
    mix: Mix
    scaled_A: Tensor | None
    """Factor on the mean square of dL/dz of a norm that z ends with; None: there is none."""
    q_A: Tensor
    c: float
    """r over the mean q."""
    moments: Moments | None = None
    norm: NormMoments | None = None
    """The norm between z and phi."""
    c_rms: float = 0.0
    """Root mean square of the correlation of z at two examples: pairs differ, and a finite width
    adds to each."""
    shape: Shape | None = None
    """Fluctuations over the units; those of two examples at `c_rms`."""

    @property
    def q(self) -> float:
        """The mean over examples; of equal groups."""
        return float(self.q_A.mean())


@dataclass(frozen=True)
class Net:
    """What all layers of a net have in common."""

    means: Means
    config: MlpConfig
    groups: Lengths
    kernel: Kernel | None = None
    """Of the inputs, where a norm over the batch asks for it."""

    @property
    def statistics(self) -> Statistics | None:
        """What its norm takes; None: it has none."""
        entry = NORMS[self.config.norm]
        return entry.statistics(self.config.width, self.config) if entry.statistics else None

    @property
    def norms_the_sum(self) -> bool:
        """Whether z ends with a norm from the second layer on."""
        return SKIPS[self.config.skip].adds and self.config.norm_position == "post"


def forward(net: Net, weights: Sequence[Weight]) -> list[Hidden]:
    """Computes z of all layers and of the read-out."""
    *hidden, readout = weights
    layers: list[Hidden] = []
    kernel = net.kernel
    read_A: Tensor = net.groups.square_A / hidden[0].fan_in
    read = net.groups.covariance / hidden[0].fan_in
    for index, weight in enumerate(hidden):
        before = layers[-1] if layers and SKIPS[net.config.skip].adds else None
        layer = _branch(net, weight, read_A, read, before, kernel)
        layer = _with_moments(net, layer, kernel)
        layer = _with_pairs(net, layer, layers)
        kernel = _next_kernel(net, layer, kernel) if kernel is not None else None
        layers.append(layer)
        made = layer.moments
        assert made is not None
        if SKIPS[net.config.skip].concatenates and index:
            read_A, read = (
                (index * read_A + made.h_A) / (index + 1),
                (index * read + made.hh) / (index + 1),
            )
        else:
            read_A, read = made.h_A, made.hh
    last = layers[-1].moments
    assert last is not None
    outputs = _branch(net, readout, last.h_A, last.hh, None, kernel)
    return [*layers, _with_pairs(net, outputs, layers)]


def _branch(
    net: Net,
    weight: Weight,
    read_A: Tensor,
    read: float,
    before: Hidden | None,
    kernel: Kernel | None,
) -> Hidden:
    """Computes a layer's z from the second moments of what its weights read."""
    mean_read = float(read_A.mean())
    pooled = _pooled(net, read, mean_read, weight.num_units)
    variance, is_fitted = fitted(weight, mean_read, pooled)
    of_weights_A = weight.fan_in * variance * read_A
    v_A = of_weights_A + weight.bias_variance
    v = weight.fan_in * variance * read + weight.bias_variance
    made = float(of_weights_A.mean()) / max(float(v_A.mean()), TINY)
    if before is None:
        mix, q_A, r = Mix(1.0, 0.0, 1.0), v_A, v
    else:
        mix = SKIPS[net.config.skip].mix(v_A, before.q_A, net.config.depth, _mean)
        q_A = mix.branch * v_A + mix.carried * before.q_A
        r = number(mix.branch) * v + number(mix.carried) * before.c * before.q
    scaled_A = None
    c = _correlation(r, float(q_A.mean()))
    if before is not None and net.norms_the_sum and net.statistics is not None:
        norm = _norm(net.statistics, kernel)
        within_A, left_A = moments.divided(norm, q_A, c)
        left = 1 - (1 + norm.centred) / norm.size
        scaled_A = norm.inverse_square * left / (within_A + EPS)
        c = -1 / (norm.size - 1) if norm.over_batch is not None else c
        q_A = left_A
    return Hidden(weight, variance, is_fitted, v_A, made, mix, scaled_A, q_A, c)


def _with_moments(net: Net, layer: Hidden, kernel: Kernel | None) -> Hidden:
    """Adds to a layer the moments after its activation."""
    norm = None
    if net.statistics is not None and not net.norms_the_sum:
        norm = _norm(net.statistics, kernel)
    if norm is not None and net.config.norm_position == "post":
        made = moments.post(net.means, layer.q_A, layer.c, norm)
    else:
        made = moments.pre(net.means, layer.q_A, layer.c, norm)
    return replace(layer, moments=made, norm=norm)


def _next_kernel(net: Net, layer: Hidden, kernel: Kernel) -> Kernel:
    """Computes the kernel of the next z; for a sum, kernels mix as the variances do."""
    memory = _memory(net.means.phi)
    if not SKIPS[net.config.skip].adds:
        return kernel.after(memory, 1.0, net.config.width, is_divided=layer.norm is not None)
    branch = number(layer.mix.branch) * float(layer.branch_A.mean())
    share = branch / max(branch + number(layer.mix.carried) * layer.q, TINY)
    return kernel.after(memory, share, net.config.width, is_divided=layer.norm is not None)


def _with_pairs(net: Net, layer: Hidden, before: Sequence[Hidden]) -> Hidden:
    """Adds to a layer the numbers that say how its examples fluctuate together."""
    c_rms = _pairs(net, layer, before)
    if layer.moments is None:
        return replace(layer, c_rms=c_rms)
    if layer.norm is not None:
        return replace(layer, c_rms=c_rms, shape=layer.moments.shape)
    return replace(layer, c_rms=c_rms, shape=net.means.shape(layer.q, c_rms, of_pairs=True))


def _pairs(net: Net, layer: Hidden, before: Sequence[Hidden]) -> float:
    """Root mean square over pairs of examples and initialisations of the correlation of z.

    A pair whose correlation lies d from the mean one keeps d times the slope of the correlation
    map, and the n units add what `drawn_square` says. Of a deep linear net that makes all
    examples alike.
    """
    if not before:
        mean = _correlation(net.groups.covariance, float(net.groups.square_A.mean()))
        return math.hypot(layer.c, layer.of_weight * _apart(net.groups.cosine, mean))
    last = before[-1]
    made, shape = last.moments, last.shape
    if made is None or shape is None or last.norm is not None or layer.scaled_A is not None:
        return abs(layer.c)
    h = max(float(made.h_A.mean()), TINY)
    branch, kept = number(layer.mix.branch) * float(layer.branch_A.mean()), 0.0
    if SKIPS[net.config.skip].adds:
        kept = number(layer.mix.carried) * last.q
    share = branch / max(branch + kept, TINY)
    weight, crossed = share * layer.of_weight, 2 * share * (1 - share)
    slope = made.shape.crossed * number(made.slope_A) * last.q / h
    apart = _apart(last.c_rms, last.c)
    differ = (weight * slope + 1 - share) * apart
    one, two = (
        total + 2 * (c * shape.h_by_q) ** 2
        for total, c in zip(shape.squares, (1.0, last.c_rms), strict=True)
    )
    mean = _correlation(shape.product, float(made.h_A.mean()) * net.means.keep)
    drawn = DrawnTogether(
        weight**2 * (two + 1 - mean**2) + crossed * (1 + last.c_rms**2),
        weight**2 * (shape.cubed[1] / mean - 1 if abs(mean) > _NO_MEAN else one) + 2 * crossed,
        weight**2 * one + 2 * crossed,
        (weight**2 * two + 2 * crossed * last.c_rms**2) * fourth(last.c, apart),
    )
    return math.sqrt(
        min(max(drawn.square(math.hypot(layer.c, differ), last.weight.num_units), layer.c**2), 1.0)
    )


@dataclass(frozen=True)
class DrawnTogether:
    """Variances of the mean products of two vectors over units drawn together, times their number.

    A is that of the two, relative to the root of both mean squares, Q and Q' those of each with
    itself, relative to the mean square.
    """

    product: float
    """Var A."""
    along: float
    """Cov(A, Q) over the mean of A."""
    alone: float
    """Var Q."""
    together: float
    """Cov(Q, Q')."""

    def square(self, mean: float, num_units: int) -> float:
        """E A^2 / (Q Q') to first order in 1/num_units, of which the denominator's part is left
        there: a square of a correlation that is never negative."""
        less = 4 * self.along - 2 * self.alone - self.together
        return (mean**2 + self.product / num_units) / (1 + max(less, 0.0) / num_units)


def fourth(mean: float, deviation: float) -> float:
    """E r^4 / (E r^2)^2 of a normal r, drawn towards 1 as E r^2 = a nears 1, where r is +-1."""
    m, s = mean**2, deviation**2
    a = min(m + s, 1.0)
    return 1 + (1 - a) * ((m**2 + 6 * m * s + 3 * s**2) / max(a**2, TINY) - 1)


def _apart(root_mean_square: float, mean: float) -> float:
    """Standard deviation of correlations."""
    return math.sqrt(max(root_mean_square**2 - mean**2, 0.0))


def _norm(statistics: Statistics, kernel: Kernel | None) -> NormMoments:
    size = statistics.num_entries
    if size is not None:
        return NormMoments(size, size - statistics.centred, statistics.centred)
    assert kernel is not None
    return kernel.norm()


@lru_cache(maxsize=32)
def _memory(phi: Function) -> float:
    """Factor of a layer on correlations of centred examples, at variance 1: the slope at 0 of the
    correlation map of phi less its mean."""
    one = line(torch.ones(1, dtype=torch.float64), phi.kinks, COARSE)
    value, slope = phi.value(one.u_AN), phi.slope(one.u_AN)
    variance = float(one.mean(value.square())) - float(one.mean(value)) ** 2
    return min(float(one.mean(slope)) ** 2 / max(variance, TINY), 1.0)


def _pooled(net: Net, read: float, mean_read: float, num_units: int) -> float:
    """Share of the mean square of an output that is left about the mean of all its entries."""
    num = net.groups.num_examples
    c = _correlation(read, mean_read)
    return 1 - (1 / num + (1 - 1 / num) * c) / num_units


def fitted(weight: Weight, mean_read: float, pooled: float) -> tuple[float, bool]:
    """Computes the variance of entries after lsuv, as `inits` does, and whether it scaled them."""
    target, variance = weight.output_variance, weight.variance
    if target is None:
        return variance, False
    for tried in range(LSUV_TRIES):
        found = pooled * (weight.fan_in * variance * mean_read + weight.bias_variance)
        if abs(found - target) < LSUV_TOLERANCE * target or found == 0:
            return variance, tried > 0
        variance *= target / found
    return variance, True


def _mean(f: Callable[[Tensor], Tensor], at: float, q_A: Tensor) -> Tensor:
    """Of a smooth f, a gate's."""
    nodes = line(q_A, (), SMOOTH)
    return nodes.mean(f(at + nodes.u_AN))


def _correlation(covariance: float, variance: float) -> float:
    if not variance > 0 or not math.isfinite(covariance):
        return 0.0
    return min(max(covariance / variance, -1.0), 1.0)


def number(value: Tensor | float) -> float:
    """The mean over groups of examples."""
    return float(value.mean()) if isinstance(value, Tensor) else value
