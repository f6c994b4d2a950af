"""What single nets of a finite width show of a batch: medians and spreads of its mean squares.

Of one example the mean and the variance V1 of the logarithm, and the logarithm L of the mean, are
known: of a plain net from its `chain`, else to first order. Two examples share the part V2 of V1
(`spread`). A batch of B examples then has

    e^V = (e^V1 + (B - 1) e^V2) / B,

the second moment of a mean of lognormal numbers, and of its logarithm the variance V and the mean
L - (V / V1) (L - mean): where examples are alike (V = V1) that of one of them, where they have
nothing in common (V = 0) what is averaged over. This holds as far as the logarithms are normal,
which L tells: V1/2 above the mean. By how much it is not is `beyond`: where the mean square of one
example is ruled by a few initialisations, no more can be said of a batch than its limit of large
width.

Axes: A groups of examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vgexp.theory.backward import Back
from vgexp.theory.chain import Layer, Logs, chain
from vgexp.theory.forward import Hidden, Net
from vgexp.theory.sample import OutputGradient, Sample, log_squares
from vgexp.theory.spread import FirstOrder, Two, first_order

_MOVED = (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0)
"""Differences of ln q of the outputs at which their gradient is asked for."""


@dataclass(frozen=True)
class Quantity:
    """The logarithm of a batch's mean square over initialisations."""

    shift: float
    """Its mean, less the logarithm of the limit."""
    variance: float
    beyond: float = 0.0
    """How far the mean is from that of lognormal examples; 0 to first order."""
    alone: float = 0.0
    """Variance of one example."""


@dataclass(frozen=True)
class Typical:
    """Of one layer, or the read-out."""

    preact: Quantity
    """z, its limit q."""
    delta: Quantity
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
    if known:
        num_outputs = last.weight.num_units
        moved = log_squares(sample, net.groups, last.q_A, last.c, num_outputs, _MOVED)
        found = chain(net, layers, (_MOVED, moved))
    rows = []
    for index, (layer, back, order) in enumerate(zip(layers, backs, orders, strict=True)):
        mean, variance = output.log_moments(back.aligned)
        one = None if found is None else found[index]
        preact, delta = _quantities(net, layer, order, one)
        delta = Quantity(delta.shift + mean, delta.variance + variance, delta.beyond, delta.alone)
        rows.append(Typical(preact, delta))
    return rows


def _quantities(
    net: Net, layer: Hidden, order: FirstOrder, one: Layer | None
) -> tuple[Quantity, Quantity]:
    num = net.groups.num_examples
    if one is None:
        preact, delta = _of_pair(order.preact, num), _of_pair(order.delta, num)
        return (
            Quantity(-preact / 2, preact),
            Quantity(order.shift - delta / 2, delta),
        )
    fresh = 0.0 if layer.weight.keeps_forward else 2 / layer.weight.num_units
    q = Logs(one.q.mean_A - fresh / 2, one.q.variance_A + fresh, one.q.of_mean_A, one.q.wide_A)
    return _of_logs(q, order.preact, num), _of_logs(one.D, order.delta, num)


def _of_pair(pair: Two, num_examples: int) -> float:
    """V from V1 and V2."""
    one, two = max(pair[0], 0.0), min(max(pair[1], 0.0), max(pair[0], 0.0))
    if num_examples == 1 or not math.isfinite(one):
        return one
    return one + math.log1p((num_examples - 1) * math.exp(two - one)) - math.log(num_examples)


def _of_logs(logs: Logs, pair: Two, num_examples: int) -> Quantity:
    """Of groups of examples of different lengths."""
    shared = min(max(pair[1] / pair[0], 0.0), 1.0) if pair[0] > 0 else 1.0
    alone = float(logs.variance_A.mean())
    variance = _of_pair((alone, shared * alone), num_examples)
    kept = 1 - (variance / alone if alone > 0 else 1.0)
    above_A = logs.of_mean_A - logs.mean_A
    beyond = kept * float((above_A - logs.variance_A / 2).mean())
    shift = _log_mean(logs.mean_A + kept * above_A) - _log_mean(logs.wide_A)
    return Quantity(shift, variance, beyond, alone)


def _log_mean(log_A: Tensor) -> float:
    return float(torch.logsumexp(log_A, 0)) - math.log(len(log_A))
