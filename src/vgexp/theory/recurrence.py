"""Predicts the columns of a plain recurrent net at step 0: along time and between layers.

h_t = phi(W_ih x_t + W_hh h_{t-1} + b). Of many units u is Gaussian at each time, although each step
has the same matrix, and dL/dh_t is independent of it, to leading order in 1/units while t^2 is
small beside the units (Chen 2018; the product of Jacobians is Pascanu's of 2013):

    q_t = |x_t|^2 Var(W_ih) + H Var(W_hh) E phi(u_{t-1})^2 + Var(b),           h_{-1} = 0
    D_t = A_t + H Var(W_hh) E phi'(u_{t+1})^2 D_{t+1}

D_t the mean square of N dL/dh_t, A_t what comes of it from above: of the read-out at the last step,
of the layer above at each. sqrt(H Var(W_hh) E phi'^2) is the factor of `delta_rms` a step.

Axes: B examples, T steps in time, I inputs, H units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vgexp.config import RnnConfig
from vgexp.inits import INITS, Init
from vgexp.norms import NORMS
from vgexp.skips import SKIPS
from vgexp.theory.forecast import Explanation, Forecast, ForecastRow
from vgexp.theory.forward import TINY
from vgexp.theory.function import Function, function, no_function
from vgexp.theory.moments import Means
from vgexp.theory.sample import Sample, lengths, output_gradient
from vgexp.theory.tables import squares
from vgexp.theory.weights import weight

CAVEAT = (
    "of many units, and of times whose square is small beside them: one matrix drawn may differ"
)
NUM_DRAWS, LARGEST_DRAWN = 48, 64
"""Matrices over which a drawn spectral radius is averaged, and their most units."""
_MOST_VARIANCES = 256


@dataclass(frozen=True)
class _Inputs:
    """What a layer reads: sums over its numbers."""

    square_BT: Tensor
    """x . x."""
    product_T: Tensor
    """x . x' of two examples, on average."""
    num: int


@dataclass(frozen=True)
class _RecurrentLayer:
    input_variance: float
    """Var(W_ih)."""
    q_BT: Tensor
    square_BT: Tensor
    """E h^2."""
    slope_BT: Tensor
    """E phi'^2."""
    product_T: Tensor
    """E h h' of two examples."""
    c: float


@dataclass(frozen=True)
class _RecurrentBack:
    above_BT: Tensor
    """A."""
    total_BT: Tensor
    """D."""


@dataclass(frozen=True)
class _RecurrentEnd:
    row: ForecastRow
    back_B: Tensor
    """Mean square of the derivative by the last state."""


def predict(
    config: RnnConfig, recurrent: Init, sample: Sample, num_tokens: int, num_outputs: int
) -> Forecast:
    """Predicts the columns of step 0 of a recurrent net that answers after its last step.

    Args:
        recurrent: how W_hh is drawn.
        num_tokens: above 0: inputs are tokens, read as one-hot vectors.

    Raises:
        QuestionError: an unknown name.
    """
    phi, reason = function(config.activation, config.negative_slope), _why_not(config, recurrent)
    if phi is None:
        reason = no_function(config.activation)
    if phi is None or reason is not None:
        return Forecast(reason=reason)
    with torch.no_grad():
        variance = recurrent_variance(config, recurrent)
        read = _tokens(sample.inputs) if num_tokens else _numbers(sample.inputs)
        if num_tokens:
            read = replace(read, num=num_tokens)
        layers: list[_RecurrentLayer] = []
        for _ in range(config.depth):
            layer = _forward(config, Means(phi, 1.0), variance, read)
            layers.append(layer)
            keep = 1 - config.dropout
            of_units = config.width * layer.square_BT / keep, config.width * layer.product_T
            read = _Inputs(*of_units, config.width)
        return _forecast(config, phi, variance, layers, sample, num_outputs)


def recurrent_variance(config: RnnConfig, recurrent: Init) -> float:
    """Computes Var(W_hh) after it is scaled to `model.spectral_radius`.

    All eigenvalues of an orthogonal matrix are of its gain's size; of others the largest lies
    beyond sqrt(H Var(W_hh)) by some per cent.
    """
    assert recurrent.std is not None
    width, radius = config.width, config.spectral_radius
    drawn = (config.gain * recurrent.std(torch.empty(width, width, device="meta"))) ** 2
    if radius is None or not drawn:
        return drawn
    if recurrent.is_isometric:
        return radius**2 / width
    return (radius * math.exp(-_excess(recurrent, width))) ** 2 / width


def _excess(recurrent: Init, width: int) -> float:
    """Mean of ln of the spectral radius over sqrt(H Var(W_hh)): 0 as units grow, as 1/sqrt(H).

    Taken of matrices that are drawn, of no more than `LARGEST_DRAWN` units.
    """
    assert recurrent.std is not None
    size = min(width, LARGEST_DRAWN)
    drawn, generator = [], torch.Generator().manual_seed(0)
    for _ in range(NUM_DRAWS):
        weight = torch.empty(size, size, dtype=torch.float64)
        recurrent.draw(weight, 1.0, generator)
        drawn.append(weight)
    radii = torch.linalg.eigvals(torch.stack(drawn)).abs().amax(-1)
    expected = math.sqrt(size) * recurrent.std(drawn[0])
    return float((radii / expected).log().mean()) * math.sqrt(size / width)


def _why_not(config: RnnConfig, recurrent: Init) -> str | None:
    if recurrent.std is None or INITS[config.init].std is None:
        return (
            f"model.recurrent_init={config.recurrent_init}, model.init={config.init}: theory is of"
            " weights that are drawn at random, of a known deviation"
        )
    if not NORMS[config.norm].is_identity:
        return f"model.norm={config.norm}: theory is of recurrent nets without norms"
    if SKIPS[config.skip].joins:
        return f"model.skip={config.skip}: theory is of recurrent nets without skips"
    return None


def _numbers(inputs: Tensor) -> _Inputs:
    x_BTI = inputs.detach().to("cpu", torch.float64)
    square_BT, num = x_BTI.square().sum(2), len(x_BTI)
    total_T = x_BTI.sum(0).square().sum(1)
    product_T = (total_T - square_BT.sum(0)) / max(num * (num - 1), 1)
    return _Inputs(square_BT, product_T if num > 1 else square_BT[0], x_BTI.shape[2])


def _tokens(inputs: Tensor) -> _Inputs:
    """1 with itself, and with another example as often as their tokens are the same."""
    x_BT, num = inputs.detach().cpu(), len(inputs)
    same_T = torch.stack([x_B.bincount().double().square().sum() for x_B in x_BT.unbind(1)])
    product_T = (same_T - num) / max(num * (num - 1), 1)
    return _Inputs(torch.ones(x_BT.shape).double(), product_T if num > 1 else same_T, 0)


def _variances(config: RnnConfig, num_inputs: int) -> tuple[float, float]:
    """Of W_ih's entries, and of both biases' sum; `torch_default` is as torch's recurrent nets."""
    init, width = INITS[config.init], config.width
    assert init.std is not None
    shape = torch.empty(width, num_inputs, device="meta")
    variance = 1 / (3 * width) if init.draws_biases else init.std(shape) ** 2
    bias = config.bias_std**2 + (2 / (3 * width) if init.draws_biases else 0.0)
    return config.gain**2 * variance, bias if config.bias else 0.0


def _forward(config: RnnConfig, means: Means, variance: float, read: _Inputs) -> _RecurrentLayer:
    input_variance, bias = _variances(config, read.num)
    memory = config.width * variance
    square_B, product = torch.zeros_like(read.square_BT[:, 0]), 0.0
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    products, c = [], 0.0
    for t, x_B in enumerate(read.square_BT.unbind(1)):
        q_B = input_variance * x_B + memory * square_B + bias
        q = float(q_B.mean())
        r = input_variance * float(read.product_T[t]) + memory * product + bias
        square_B, slope_B = squares(means.phi, q_B)
        steps.append((q_B, square_B, slope_B))
        known = math.isfinite(q) and math.isfinite(r)
        c = min(max(r / max(q, TINY), -1.0), 1.0) if known else 0.0
        product = means.shape(q, c).product if known else math.nan
        products.append(product)
    q_BT, square_BT, slope_BT = (torch.stack(part, 1) for part in zip(*steps, strict=True))
    return _RecurrentLayer(
        input_variance, q_BT, square_BT, slope_BT, torch.tensor(products, dtype=torch.float64), c
    )


def _forecast(
    config: RnnConfig,
    phi: Function,
    variance: float,
    layers: list[_RecurrentLayer],
    sample: Sample,
    num_outputs: int,
) -> Forecast:
    end = _readout(config, layers[-1], sample, num_outputs)
    above_BT = torch.zeros_like(layers[-1].q_BT)
    above_BT[:, -1] = end.back_B
    backs = _backward(config, variance, layers, above_BT)
    rows = {end.row.name: end.row}
    following = end.row.delta_rms
    for index in range(len(layers) - 1, -1, -1):
        name, rms = _name(index), _root(backs[index].above_BT)
        gain = rms / following if rms is not None and following else None
        rows[name] = ForecastRow(name, index + 1, _std(phi, layers[index]), rms, gain, None)
        following = rms
    explanations = tuple(
        _explained(config, variance, layer, _name(index)) for index, layer in enumerate(layers)
    )
    times = {
        f"{_name(index)}.h": tuple(map(_root, back.total_BT.unbind(1)))
        for index, back in enumerate(backs)
    }
    return Forecast(dict(reversed(rows.items())), explanations, caveat=CAVEAT, times=times)


def _readout(
    config: RnnConfig, last: _RecurrentLayer, sample: Sample, num_outputs: int
) -> _RecurrentEnd:
    """Of the last state."""
    drawn = weight(config, (num_outputs, config.width))
    factor, bias, num = drawn.fan_in * drawn.variance, drawn.bias_variance, len(last.q_BT)
    q_B = factor * last.square_BT[:, -1] + bias
    q = float(q_B.mean())
    c = (factor * float(last.product_T[-1]) + bias) / max(q, TINY)
    c = min(max(c, -1.0), 1.0) if math.isfinite(c) else 0.0
    # Groups of about one variance, which here is what lengths are.
    groups = lengths(q_B.sqrt()[:, None])
    output = output_gradient(sample, groups, groups.square_A, c, num_outputs)
    pair = (1 / num + (1 - 1 / num) * c) / num_outputs
    std = math.sqrt(max(q * (1 - pair), 0.0)) if math.isfinite(q) else None
    row = ForecastRow("readout.weight", config.depth + 1, std, _root(output.square_A), None, None)
    return _RecurrentEnd(row, num_outputs * drawn.variance * output.square_A[groups.group_B])


def _backward(
    config: RnnConfig, variance: float, layers: list[_RecurrentLayer], above_BT: Tensor
) -> list[_RecurrentBack]:
    """Of each layer, first to last."""
    found: list[_RecurrentBack] = []
    num_steps, memory = above_BT.shape[1], config.width * variance
    cuts = range(config.truncation, num_steps, config.truncation) if config.truncation else ()
    for layer in reversed(layers):
        total_B, totals = torch.zeros_like(above_BT[:, 0]), []
        for t in range(num_steps - 1, -1, -1):
            is_cut = t + 1 in cuts or t + 1 == num_steps
            came_B = 0.0 if is_cut else memory * layer.slope_BT[:, t + 1] * total_B
            total_B = above_BT[:, t] + came_B
            totals.append(total_B)
        total_BT = torch.stack(totals[::-1], 1)
        found.append(_RecurrentBack(above_BT, total_BT))
        share = config.width * layer.input_variance / (1 - config.dropout)
        above_BT = share * layer.slope_BT * total_BT
    return found[::-1]


def _name(index: int) -> str:
    return f"layers.{index}"


def _explained(
    config: RnnConfig, variance: float, layer: _RecurrentLayer, name: str
) -> Explanation:
    """A step back in time: means over examples and times."""
    gain, slope = config.width * variance, float(layer.slope_BT.mean())
    chi = gain * slope
    return Explanation(name, float(layer.q_BT.mean()), layer.c, gain, slope, chi, 0.0, chi)


def _std(phi: Function, layer: _RecurrentLayer) -> float | None:
    """Of h over examples, times and units."""
    q_N = layer.q_BT.flatten()
    q_N = q_N[:: max(len(q_N) // _MOST_VARIANCES, 1)]
    mean = float(phi.mean(phi.value, q_N).mean())
    variance = float(layer.square_BT.mean()) - mean**2
    return math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else None


def _root(square: Tensor) -> float | None:
    mean = float(square.mean())
    return math.sqrt(mean) if math.isfinite(mean) else None
