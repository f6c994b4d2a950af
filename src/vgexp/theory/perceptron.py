"""Predicts the columns of `layers.csv` of a perceptron at step 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vgexp.config import MlpConfig
from vgexp.inits import INITS
from vgexp.norms import NORMS
from vgexp.theory import moments
from vgexp.theory.backward import Back, backward
from vgexp.theory.batch import kernel
from vgexp.theory.forecast import Explanation, Forecast, ForecastRow
from vgexp.theory.forward import TINY, Hidden, Net, forward, number
from vgexp.theory.function import function, no_function
from vgexp.theory.sample import Sample, lengths, output_gradient
from vgexp.theory.typical import Typical, typical
from vgexp.theory.weights import weights

_KURTOSIS, _MANY, _ALL_BUT_FEW = 4.0, 0.25, 1.0
"""Kurtosis E phi'^4 / (E phi'^2)^2 that relu (2) does not have, and, over the number of units, from
which on first order is not enough, and from which on nothing is predicted."""
_UNLIKE = 0.55
"""Root mean square less mean cosine of two inputs beyond which one does not stand for all."""
_FEW_LONG = 0.15
"""Share of the examples, weighted by the mean squares that their lengths come to, below which few
examples rule a batch's means."""
_DRIVEN_APART = 1.5
"""How many times as far apart the logarithms of q come to lie at the least for that."""
_WIDE = "wide"
_UNKNOWN_SPREAD = frozenset({"gates", "saturated", "pairs", "lengths", _WIDE})
_MOST_BEYOND, _SOME_BEYOND, _LARGE_SHARE = 0.4, 0.1, 0.1
"""How far the mean of a mean square's logarithm may be from that of lognormal examples, before only
the limit of large width is told, and before its spread is known to be larger than predicted; and
the share of what lognormal examples add to the mean, below which neither is so."""
_FAR_APART = 1.0
"""Standard deviation over initialisations of ln delta_rms of one example, from which on medians
have been seen to be off by half of it."""


def predict(config: MlpConfig, sample: Sample, num_outputs: int) -> Forecast:
    """Predicts the columns of step 0 of a perceptron, for given examples.

    Raises:
        QuestionError: an unknown name.
    """
    reason = _why_not(config)
    if reason is not None:
        return Forecast(reason=reason)
    phi = function(config.activation, config.negative_slope)
    if phi is None:
        return Forecast(reason=no_function(config.activation))
    with torch.no_grad():
        x_BF = sample.x_BF
        groups = lengths(x_BF)
        net = Net(moments.Means(phi, 1 - config.dropout), config, groups)
        if net.statistics is not None and net.statistics.num_entries is None:
            net = replace(net, kernel=kernel(x_BF))
        if reason := _why_not_here(net):
            return Forecast(reason=reason)
        layers = forward(net, weights(config, x_BF.shape[1], num_outputs))
        if reason := _saturated(layers, _ALL_BUT_FEW):
            return Forecast(reason=reason)
        last = layers[-1]
        output = output_gradient(sample, groups, last.q_A, last.c, num_outputs)
        backs = backward(net, layers, output)
        found = typical(net, layers, backs, output, sample)
        caveats = _caveats(net, layers)
    is_wide, said = _few_rule(found)
    if said is not None:
        caveats[_WIDE if is_wide else "spread"] = said
    if _few_long(x_BF, layers):
        caveats.pop("spread", None)
        caveats["lengths"] = (
            "from layer to layer few examples come to be much longer than the others: off by up to"
            " a factor of 3, and how single nets spread is not known"
        )
    rows = _rows(net, layers, backs, found, is_wide=is_wide)
    if _UNKNOWN_SPREAD.intersection(caveats):
        rows = {
            name: replace(
                row, log_delta_std=None, log_preact_std=None if is_wide else row.log_preact_std
            )
            for name, row in rows.items()
        }
    said = "; ".join(caveats.values()) or None
    return Forecast(rows, _explanations(layers, backs), caveat=said)


def _why_not(config: MlpConfig) -> str | None:
    init, norm = INITS[config.init], NORMS[config.norm]
    if init.fit is not None and not init.scales_outputs:
        return f"model.init={config.init} starts branches at 0 in its own way: no theory of it"
    if not norm.is_known:
        return f"model.norm={config.norm} is your own: no theory of it"
    return None


def _why_not_here(net: Net) -> str | None:
    """Why a norm, a width or a batch permits no prediction; None where it does."""
    taken, config = net.statistics, net.config
    if taken is None:
        return None
    size = net.groups.num_examples if taken.num_entries is None else taken.num_entries
    if size - taken.centred < moments.FEWEST:
        return (
            f"model.norm={config.norm} takes {size} numbers together: what it divides by"
            " fluctuates too much for a mean to tell of one draw"
        )
    if taken.num_entries is None and (net.kernel is None or net.kernel.norm().dimensions < 3):
        return f"model.norm={config.norm} meets examples that hardly differ"
    if taken.num_entries is None and config.norm_position == "post" and not net.norms_the_sum:
        return (
            "batch norm after the activation: dL/dz is ruled by the units that few examples"
            " reach: no theory of it"
        )
    return None


def _saturated(layers: Sequence[Hidden], most: float) -> str | None:
    """Why means over units do not tell of one net, where phi' is 0 at all but a few of them: its
    square's kurtosis, over the units, is above `most`."""
    for layer in layers[:-1]:
        assert layer.moments is not None
        kurtosis, num = layer.moments.shape.kurtosis[0], layer.weight.num_units
        if kurtosis > _KURTOSIS and kurtosis / num > most:
            return "phi' is about 0 at nearly all units: a few of them rule dL/dz of a single net"
    return None


def _caveats(net: Net, layers: Sequence[Hidden]) -> dict[str, str]:
    """Cause -> what is known to be off because of it."""
    found: dict[str, str] = {}
    if net.kernel is not None:
        found["batch"] = (
            "batch norm in the limit of large width: at 64 units dL/dz may grow by up to 4 %"
            " a layer more than predicted"
        )
    if layers[-2].mix.gate is not None:
        found["gates"] = (
            "the gates' own dL/dz may be up to 20 % smaller than predicted, and how single nets"
            " spread is not known"
        )
    if saturated := _saturated(layers, _MANY):
        found["saturated"] = saturated
    if net.groups.cosine - abs(_cosine(net)) > _UNLIKE:
        found["pairs"] = (
            "examples are alike or opposite in pairs: how single nets spread is not known"
        )
    return found


def _few_rule(found: Sequence[Typical]) -> tuple[bool, str | None]:
    """Whether only the limit of large width is told, since a few initialisations rule the mean over
    all, and what is said of it."""
    ruled = [
        one.beyond for row in found for one in (row.delta, row.preact) if one.share > _LARGE_SHARE
    ]
    worst = max(ruled, default=0.0)
    alone = max(math.sqrt(max(row.delta.alone, 0.0)) / 2 for row in found)
    if worst > _MOST_BEYOND:
        return True, (
            "the limit of infinite width, without spread: at this width and depth the signal dies"
            " out in some nets and lives in others, delta_rms of one example differs from net to"
            f" net by a factor of {math.exp(min(alone, 600.0)):.2g} either way, and no correction"
            " for the width holds"
        )
    said = []
    if alone > _FAR_APART:
        said.append(
            f"much depth for so few units: off by up to a factor of {math.exp(alone / 2):.2g}"
        )
    if worst > _SOME_BEYOND:
        said.append("single nets may spread up to 1.7 times as far as predicted")
    return False, "; ".join(said) or None


def _few_long(x_BF: Tensor, layers: Sequence[Hidden]) -> bool:
    """Whether few examples rule the means of a batch, as q of a long one dies more slowly.

    Where the logarithms of q come to lie p times as far apart, q is about |x|^2p.
    """
    apart = [float(layer.q_A.clamp(min=TINY).log().std(correction=0)) for layer in layers]
    if apart[0] == 0 or max(apart) < _DRIVEN_APART * apart[0]:
        return False
    log_B = x_BF.square().sum(1).clamp(min=TINY).log() * (max(apart) / apart[0])
    share_B = torch.softmax(log_B, 0)
    return 1 / float(share_B.square().sum()) < _FEW_LONG * len(x_BF)


def _cosine(net: Net) -> float:
    """The mean one of two inputs, as theory takes it."""
    return net.groups.covariance / max(float(net.groups.square_A.mean()), TINY)


def _rows(
    net: Net, layers: list[Hidden], backs: list[Back], found: list[Typical], *, is_wide: bool
) -> dict[str, ForecastRow]:
    rows: dict[str, ForecastRow] = {}
    following: float | None = None
    share = 1 / net.groups.num_examples
    for index in range(len(layers) - 1, -1, -1):
        layer, back, vary = layers[index], backs[index], found[index]
        pooled = 1 - (share + (1 - share) * layer.c) / layer.weight.num_units
        wide_std = math.sqrt(max(layer.q * pooled, 0.0))
        wide_rms = math.sqrt(float(back.wide_A.mean()))
        rms = _typical(math.sqrt(float(back.square_A.mean())), vary.delta.shift)
        std = _typical(wide_std, vary.preact.shift)
        if is_wide:
            rms, std = _typical(wide_rms, 0.0), _typical(wide_std, 0.0)
        is_readout = layer.moments is None
        name = "readout.weight" if is_readout else _name(index)
        rows[name] = ForecastRow(
            name,
            index + 1,
            std,
            rms,
            rms / following if following and rms is not None else None,
            _deviation(vary.delta.variance),
            _deviation(vary.preact.variance),
            wide_std,
            wide_rms,
        )
        if layer.mix.gate is not None and index:
            rows |= _gate_row(index, layer, backs[index], vary)
        following = rms
    return dict(reversed(rows.items()))


def _name(index: int) -> str:
    return f"layers.{index}.linear.weight"


def _gate_row(index: int, layer: Hidden, back: Back, vary: Typical) -> dict[str, ForecastRow]:
    """The gate's z has the branch's variance; its dL/dz is the next z's times T' (branch - z)."""
    name = f"layers.{index}.skip.gate.weight"
    assert layer.mix.gate is not None
    rms = math.sqrt(float((back.square_A * layer.mix.gate).mean()))
    std = math.sqrt(float(layer.branch_A.mean()))
    typical = _typical(rms, vary.delta.shift)
    return {name: ForecastRow(name, index + 1, std, typical, None, _deviation(vary.delta.variance))}


def _explanations(layers: list[Hidden], backs: list[Back]) -> tuple[Explanation, ...]:
    found: list[Explanation] = []
    for layer, following, back in zip(layers[:-1], layers[1:], backs[:-1], strict=True):
        assert layer.moments is not None
        found.append(
            Explanation(
                _name(len(found)),
                layer.q,
                layer.c,
                following.weight.num_units * following.weight_variance,
                number(layer.moments.slope_A),
                back.chi,
                back.carried,
                back.factor,
            )
        )
    return tuple(found)


def _typical(wide: float, shift: float) -> float | None:
    """The median of an amplitude whose mean square is that of the limit, and the mean of whose mean
    square's logarithm is so far from it; None beyond what float64 holds."""
    if not math.isfinite(wide):
        return None
    return wide * math.exp(shift / 2) if math.isfinite(shift) else wide


def _deviation(variance: float) -> float | None:
    return math.sqrt(variance) / 2 if math.isfinite(variance) else None
