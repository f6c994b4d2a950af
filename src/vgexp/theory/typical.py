"""Computes medians and spreads of a batch's mean squares over nets of finite width.

Of one example the mean m and the variance V of the logarithm, and the logarithm L of the mean, are
known: of a plain net from its `chain`, else to first order. Two examples share the part W of V
(`spread`); the rest each has to itself, and a batch's mean averages over it (`lognormal`). Of
lognormal examples L is m + V/2, and the logarithm of the batch's mean has the variance W and what
is left of the rest, and a mean between m, where all examples are alike, and L, where they are many
and have nothing in common.

By how much L is not m + V/2 is `beyond`: where the mean square of one example is ruled by a few
initialisations, no more can be said of a batch than its limit of large width.

Axes: A groups of examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vgexp.theory.backward import Back
from vgexp.theory.chain import ChainLayer, Logs, chain
from vgexp.theory.forward import Hidden, Net
from vgexp.theory.lognormal import log_of_mean
from vgexp.theory.sample import OutputGradient, Sample, log_squares
from vgexp.theory.spread import FirstOrder, Two, first_order

_NOTHING = 1e-9
_MOVED = (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0)
"""Differences of ln q of the outputs at which their gradient is asked for."""


@dataclass(frozen=True)
class TypicalAmplitude:
    """The logarithm of a batch's mean square over initialisations."""

    shift: float
    """Its mean, less the logarithm of the limit."""
    variance: float
    beyond: float = 0.0
    """How far the mean is from that of lognormal examples; 0 to first order."""
    share: float = 0.0
    """The same over what lognormal examples add to the mean."""
    alone: float = 0.0
    """Variance of one example."""


@dataclass(frozen=True)
class Typical:
    """Of one layer, or the read-out."""

    preact: TypicalAmplitude
    """z, its limit q."""
    delta: TypicalAmplitude
    """dL/dz, its limit `Back.square_A`."""


def typical(
    net: Net,
    layers: Sequence[Hidden],
    backs: Sequence[Back],
    output: OutputGradient,
    sample: Sample,
) -> list[Typical]:
    """Of all layers and the read-out."""
    orders = first_order(net, layers, backs, output)
    last = layers[-1]
    known = math.isfinite(output.log_slope) and math.isfinite(last.q) and last.q > 0
    found = None
    # Where nothing varies, there is nothing to follow.
    if known and any(order.preact[0] > _NOTHING for order in orders[:-1]):
        num_outputs = last.weight.num_units
        moved = log_squares(sample, net.groups, last.q_A, last.c, num_outputs, _MOVED)
        found = chain(net, layers, (_MOVED, moved))
    rows = []
    for index, (layer, back, order) in enumerate(zip(layers, backs, orders, strict=True)):
        mean, variance = output.log_moments(back.aligned)
        one = None if found is None else found[index]
        preact, delta = _quantities(net, layer, order, one)
        delta = replace(delta, shift=delta.shift + mean, variance=delta.variance + variance)
        rows.append(Typical(preact, delta))
    return rows


def _quantities(
    net: Net, layer: Hidden, order: FirstOrder, one: ChainLayer | None
) -> tuple[TypicalAmplitude, TypicalAmplitude]:
    num = net.groups.num_examples
    if one is None:
        delta = _of_pair(order.delta, num)
        return _of_pair(order.preact, num), replace(delta, shift=delta.shift + order.shift)
    fresh = 0.0 if layer.weight.keeps_forward else 2 / layer.weight.num_units
    q = Logs(one.q.mean_A - fresh / 2, one.q.variance_A + fresh, one.q.of_mean_A, one.q.wide_A)
    return _of_logs(q, order.preact, num), _of_logs(one.D, order.delta, num)


def _of_pair(pair: Two, num_examples: int) -> TypicalAmplitude:
    """To first order, where the mean is the limit."""
    one = max(pair[0], 0.0)
    shared = min(max(pair[1], 0.0), one)
    mean, own = log_of_mean(one - shared, num_examples)
    return TypicalAmplitude(mean - one / 2, shared + own)


def _of_logs(logs: Logs, pair: Two, num_examples: int) -> TypicalAmplitude:
    """Of groups of examples of different lengths."""
    shared = min(max(pair[1] / pair[0], 0.0), 1.0) if pair[0] > 0 else 1.0
    alone = float(logs.variance_A.mean())
    mean, own = log_of_mean((1 - shared) * alone, num_examples)
    kept = 2 * mean / alone if alone > 0 else 0.0
    above_A = logs.of_mean_A - logs.mean_A
    beyond = abs(kept * float((above_A - logs.variance_A / 2).mean()))
    share = beyond / mean if mean > 0 else 0.0
    shift = _log_mean(logs.mean_A + kept * above_A) - _log_mean(logs.wide_A)
    return TypicalAmplitude(shift, shared * alone + own, beyond, share, alone)


def _log_mean(log_A: Tensor) -> float:
    return float(torch.logsumexp(log_A, 0)) - math.log(len(log_A))
