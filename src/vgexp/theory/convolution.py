"""Predicts the columns of `layers.csv` of a plain convolutional net at step 0.

In the limit of many channels z is Gaussian at each position, independent between channels. With q
a map over the positions of each image, and sums over the positions t that a kernel covers (none
beyond the border, where h is 0):

    q(p) = fan_in Var(W) sum_t tap(t) E phi(u(p + t))^2 + Var(b)                    (Xiao 2018)
    D(p) = E phi'(u(p))^2 num_channels' positions Var(W') sum_t tap(t) D'(p - t)

tap(t): each position's share of the kernel's mean square; fan_in and positions count them all. No
products of two positions are on the way back, whose weights are independent of each other: only the
read-out's mean over positions asks how alike these are (`positions`).

Axes: B examples, S, D as in `positions`, H rows, W columns, C outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vgexp.config import ConvConfig
from vgexp.inits import INITS
from vgexp.norms import NORMS
from vgexp.skips import SKIPS
from vgexp.theory.forecast import Explanation, Forecast, ForecastRow
from vgexp.theory.forward import TINY, fitted
from vgexp.theory.function import Function, function, no_function
from vgexp.theory.positions import (
    Alike,
    Distances,
    convolved,
    convolved_back,
    distances,
    standing,
)
from vgexp.theory.sample import Lengths, OutputGradient, Sample, by_group, lengths, output_gradient
from vgexp.theory.series import coefficients, product, scale_free
from vgexp.theory.tables import squares
from vgexp.theory.weights import Weight, taps, weight

_READOUT = "readout.weight"
CAVEAT = "of many channels: few of them take something off, and no spread is predicted"


@dataclass(frozen=True)
class Convolution:
    """One convolution, with zeros around the image."""

    name: str
    """Of its weight."""
    in_channels: int
    out_channels: int
    kernel: int
    stride: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its weight."""
        return self.out_channels, self.in_channels, self.kernel, self.kernel


@dataclass(frozen=True)
class _ConvolutionNet:
    config: ConvConfig
    phi: Function
    distances: Distances
    standing_S: Tensor
    num_examples: int

    def partners(self, x_BHW: Tensor, is_other: bool) -> Tensor:
        """x of the second of each pair of examples."""
        return (x_BHW.roll(-1, 0) if is_other else x_BHW)[self.standing_S]


@dataclass(frozen=True)
class _Read:
    """The input of a convolution: mean squares over channels, and products of two positions."""

    square_BHW: Tensor
    alike: Alike
    stride: int
    """A step of the last resolution, in steps here."""


@dataclass(frozen=True)
class _ConvolutionLayer:
    weight: Weight
    variance: float
    """Of its entries, after lsuv has scaled them."""
    taps: Tensor
    """What each position of the kernel does to D on its way back."""
    stride: int
    q_BHW: Tensor
    slope_BHW: Tensor
    """E phi'^2, over what dropout keeps."""
    mean_product: float
    """Of two of the batch's z in one channel, all pairs of examples and positions."""


def predict(
    config: ConvConfig, layers: Sequence[Convolution], sample: Sample, num_outputs: int
) -> Forecast:
    """Predicts the columns of step 0 of a chain of convolutions, for given images.

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
        net, read = _begin(config, phi, layers, sample)
        found: list[_ConvolutionLayer] = []
        for layer in layers:
            made, read = _forward(net, layer, read)
            found.append(made)
        groups = lengths(sample.x_BF)
        readout = weight(config, (num_outputs, layers[-1].out_channels))
        variance, q_A, c = _readout(net, readout, read, groups)
        output = output_gradient(sample, groups, q_A, c, num_outputs)
        start_B = num_outputs * variance * output.square_A[groups.group_B]
        deltas = _backward(found, start_B)
    end = _ConvolutionEnd(readout, variance, q_A, c, output, net.num_examples)
    return _forecast(layers, found, deltas, end, 1 - config.dropout)


@dataclass(frozen=True)
class _ConvolutionEnd:
    """The read-out."""

    weight: Weight
    variance: float
    q_A: Tensor
    c: float
    output: OutputGradient
    num_examples: int


def _why_not(config: ConvConfig) -> str | None:
    if SKIPS[config.skip].joins:
        return f"model.skip={config.skip}: theory is of plain convolutional nets"
    norm = NORMS[config.norm]
    if norm.statistics is not None or not norm.is_known:
        return f"model.norm={config.norm}: theory is of convolutional nets without norms"
    init = INITS[config.init]
    if init.fit is not None and not init.scales_outputs:
        return f"model.init={config.init} starts branches at 0 in its own way: no theory of it"
    return None


def _begin(
    config: ConvConfig, phi: Function, layers: Sequence[Convolution], sample: Sample
) -> tuple[_ConvolutionNet, _Read]:
    x_BCHW = sample.inputs.detach().to("cpu", torch.float64)
    num, channels, height, width = x_BCHW.shape
    stride = math.prod(layer.stride for layer in layers)
    last = distances(-(-height // stride), -(-width // stride))
    standing_S = standing(num, len(last), height * width)
    net = _ConvolutionNet(config, phi, last, standing_S, num)

    def products(is_other: bool) -> Tensor:
        total = torch.zeros(())
        for channel in range(channels):
            x_BHW = x_BCHW[:, channel]
            moved = last.moved(net.partners(x_BHW, is_other), stride)
            total = total + x_BHW[standing_S][:, None] * moved
        return total / channels

    alike = Alike(products(False), products(True))
    return net, _Read(x_BCHW.square().mean(1), alike, stride)


def _forward(
    net: _ConvolutionNet, layer: Convolution, read: _Read
) -> tuple[_ConvolutionLayer, _Read]:
    """Computes a layer's z from its input, and the input of the next layer."""
    kernel, place = weight(net.config, layer.shape), taps(net.config, layer.shape)
    covered_BHW = convolved(read.square_BHW, place, layer.stride)
    stride = read.stride // layer.stride
    inside_DHW = net.distances.moved(torch.ones_like(covered_BHW[:1]), stride)[0]

    def covered(x_SDHW: Tensor, _is_other: bool) -> Tensor:
        return convolved(x_SDHW.flatten(0, 1), place, layer.stride).view(
            *x_SDHW.shape[:2], *inside_DHW.shape[1:]
        )

    alike = read.alike.each(covered)
    mean_read, mean_product = float(covered_BHW.mean()), _mean(net, alike, stride)
    pooled = 1 - mean_product / max(mean_read, TINY) / layer.out_channels
    variance, _ = fitted(kernel, mean_read, pooled)
    factor = kernel.fan_in * variance
    q_BHW = factor * covered_BHW + kernel.bias_variance
    alike = alike.each(lambda x, _: (factor * x + kernel.bias_variance) * inside_DHW)
    square, slope = (m.view(q_BHW.shape) for m in squares(net.phi, q_BHW.flatten()))
    keep = 1 - net.config.dropout
    made = _ConvolutionLayer(
        kernel,
        variance,
        _taps_back(place, kernel, variance),
        layer.stride,
        q_BHW,
        slope / keep,
        factor * mean_product + kernel.bias_variance,
    )
    following = _activated(net, q_BHW, alike, stride)
    following.own_SDHW[:, 0] = square[net.standing_S] / keep
    return made, _Read(square / keep, following, stride)


def _taps_back(place: Tensor, kernel: Weight, variance: float) -> Tensor:
    """What each tap does to D on its way back."""
    return place * (place.numel() * kernel.num_units * variance)


def _activated(net: _ConvolutionNet, q_BHW: Tensor, alike: Alike, stride: int) -> Alike:
    coefficient_KBHW = None if net.phi.is_homogeneous else coefficients(net.phi, q_BHW)

    def products(x_SDHW: Tensor, is_other: bool) -> Tensor:
        q_SHW = net.partners(q_BHW, is_other)
        root = (q_BHW[net.standing_S][:, None] * net.distances.moved(q_SHW, stride)).sqrt()
        c = (x_SDHW / root.clamp(min=TINY)).clamp(-1, 1)
        if coefficient_KBHW is None:
            return root * scale_free(net.phi, c)
        one_K = coefficient_KBHW[:, net.standing_S][:, :, None]
        two_K = torch.stack(
            [net.distances.moved(net.partners(a, is_other), stride) for a in coefficient_KBHW]
        )
        return product(one_K, two_K, c)

    return alike.each(products)


def _mean(net: _ConvolutionNet, alike: Alike, stride: int) -> float:
    """Over all pairs of the batch's examples, and of positions."""
    share = 1 / net.num_examples
    own = float(net.distances.mean(alike.own_SDHW, stride).mean())
    other = float(net.distances.mean(alike.other_SDHW, stride).mean())
    return share * own + (1 - share) * other


def _readout(
    net: _ConvolutionNet, readout: Weight, read: _Read, groups: Lengths
) -> tuple[float, Tensor, float]:
    """Variance of its entries; of its outputs, by group; and their correlation."""
    own_S = net.distances.mean(read.alike.own_SDHW, 1)
    other = float(net.distances.mean(read.alike.other_SDHW, 1).mean())
    square_B = read.square_BHW.mean((1, 2))
    standing_square = max(float(square_B[net.standing_S].mean()), TINY)
    if len(own_S) == net.num_examples:
        pooled_B = own_S
    else:
        pooled_B = square_B * (float(own_S.mean()) / standing_square)
        other *= float(square_B.mean()) / standing_square
    mean = float(pooled_B.mean())
    num = net.num_examples
    pair = (1 / num + (1 - 1 / num) * other / max(mean, TINY)) / readout.num_units
    variance, _ = fitted(readout, mean, 1 - pair)
    factor, bias = readout.fan_in * variance, readout.bias_variance
    q_A = by_group(factor * pooled_B + bias, groups)
    c = (factor * other + bias) / max(factor * mean + bias, TINY)
    return variance, q_A, min(max(c, -1.0), 1.0)


def _backward(layers: Sequence[_ConvolutionLayer], start_B: Tensor) -> list[Tensor]:
    """D of each convolution, first to last.

    Args:
        start_B: mean square of the derivative by the mean over positions.
    """
    height, width = layers[-1].q_BHW.shape[1:]
    came_BHW = (start_B / (height * width) ** 2)[:, None, None]
    found = [layers[-1].slope_BHW * came_BHW]
    for layer, following in zip(layers[-2::-1], layers[:0:-1], strict=True):
        size = (layer.q_BHW.shape[1], layer.q_BHW.shape[2])
        came_BHW = convolved_back(found[-1], following.taps, following.stride, size)
        found.append(layer.slope_BHW * came_BHW)
    return found[::-1]


def _forecast(
    plan: Sequence[Convolution],
    layers: Sequence[_ConvolutionLayer],
    deltas: Sequence[Tensor],
    end: _ConvolutionEnd,
    keep: float,
) -> Forecast:
    squares_L = [float(delta.mean()) for delta in deltas] + [float(end.output.square_A.mean())]
    gains = _gains(layers, end)
    rows, explanations = {}, []
    for index, (layer, place) in enumerate(zip(layers, plan, strict=True)):
        q = float(layer.q_BHW.mean())
        std = math.sqrt(max(q - layer.mean_product / place.out_channels, 0.0))
        rows[place.name] = _row(place.name, index, std, squares_L)
        gain, slope = gains[index], float(layer.slope_BHW.mean())
        factor = squares_L[index] / max(squares_L[index + 1], TINY)
        c = layer.mean_product / max(q, TINY)
        is_inner = index + 1 < len(layers) and layers[index + 1].stride == 1
        explanations.append(
            Explanation(place.name, q, c, gain, slope * keep, gain * slope, 0.0, factor, is_inner)
        )
    num = end.num_examples
    pair = (1 / num + (1 - 1 / num) * end.c) / end.weight.num_units
    std = math.sqrt(max(float(end.q_A.mean()) * (1 - pair), 0.0))
    rows[_READOUT] = _row(_READOUT, len(layers), std, squares_L)
    return Forecast(rows, tuple(explanations), caveat=CAVEAT)


def _gains(layers: Sequence[_ConvolutionLayer], end: _ConvolutionEnd) -> list[float]:
    """Mean-square factors of the weights that read each layer, borders left out; a stride hands a
    derivative to one position in its square."""
    inner = [float(layer.taps.sum()) / layer.stride**2 for layer in layers[1:]]
    num_positions = layers[-1].q_BHW[0].numel()
    return [*inner, end.weight.num_units * end.variance / num_positions**2]


def _row(name: str, index: int, std: float, squares_L: Sequence[float]) -> ForecastRow:
    rms = math.sqrt(squares_L[index]) if math.isfinite(squares_L[index]) else None
    gain = None
    if rms is not None and index + 1 < len(squares_L) and 0 < squares_L[index + 1] < math.inf:
        gain = rms / math.sqrt(squares_L[index + 1])
    known = std if math.isfinite(std) else None
    return ForecastRow(name, index + 1, known, rms, gain, None, None, known, rms)
