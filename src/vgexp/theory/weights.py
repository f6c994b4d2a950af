"""Describes weights and kernels for theory: their sizes and the variances of their init."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vgexp.config import MlpConfig
from vgexp.inits import INITS, Init, InitConfig
from vgexp.skips import SKIPS


class WeightConfig(InitConfig, Protocol):
    """The fields of a configuration that decide a weight's variance."""

    bias: bool


@dataclass(frozen=True)
class Weight:
    """One weight matrix, or a kernel as a matrix, and its biases at initialisation."""

    fan_in: int
    num_units: int
    variance: float
    """Mean square of an entry."""
    bias_variance: float
    is_isometric: bool
    """Orthogonal rows or columns of one length."""
    output_variance: float | None = None
    """What the variance of its output is brought to on a batch (lsuv); None: it is left alone."""

    @property
    def keeps_forward(self) -> bool:
        """Whether the norm of what it reads is kept, but for a constant."""
        return self.is_isometric and self.num_units >= self.fan_in

    @property
    def keeps_backward(self) -> bool:
        """The same of a gradient on its way back."""
        return self.is_isometric and self.num_units <= self.fan_in


def weights(config: MlpConfig, num_inputs: int, num_outputs: int) -> list[Weight]:
    """Describes the main path's weights, from the first to the read-out."""
    return [
        weight(config, (num_units, fan_in))
        for fan_in, num_units in _shapes(config, num_inputs, num_outputs)
    ]


def weight(config: WeightConfig, shape: Sequence[int]) -> Weight:
    """Describes a matrix or kernel [num_units, ...]; fan_in counts a kernel's positions."""
    init = INITS[config.init]
    num_units, fan_in = shape[0], math.prod(shape[1:])
    gain = 1.0 if init.scales_outputs else config.gain
    bias = config.bias_std**2 + (1 / (3 * fan_in) if init.draws_biases else 0.0)
    return Weight(
        fan_in,
        num_units,
        (gain * init.std(torch.empty(tuple(shape), device="meta"))) ** 2
        if init.std is not None
        else _drawn_mean_square(init, gain, shape),
        bias if config.bias else 0.0,
        init.is_isometric,
        config.gain**2 if init.scales_outputs else None,
    )


def taps(config: WeightConfig, shape: Sequence[int]) -> Tensor:
    """Computes the share of a kernel's mean square at each position: [kernel, kernel], of sum 1.

    Evenly over those that one draw does not leave at 0; of an init that does not say its own mean
    square, as one draw has it.
    """
    init, kernel = INITS[config.init], torch.zeros(tuple(shape), dtype=torch.float64)
    init.draw(kernel, 1.0, torch.Generator().manual_seed(0))
    found = kernel.square().mean((0, 1))
    if init.std is not None:
        found = (found > 0).double()
    return found / found.sum().clamp(min=1e-300)


def _shapes(config: MlpConfig, num_inputs: int, num_outputs: int) -> Iterator[tuple[int, int]]:
    yield num_inputs, config.width
    for num_before in range(1, config.depth):
        yield config.width * (num_before if SKIPS[config.skip].concatenates else 1), config.width
    yield config.width, num_outputs


def _drawn_mean_square(init: Init, gain: float, shape: Sequence[int]) -> float:
    """Of an init that does not say: of one draw."""
    weight = torch.zeros(tuple(shape), dtype=torch.float64)
    init.draw(weight, gain, torch.Generator().manual_seed(0))
    mean_square = float(weight.square().mean())
    return mean_square if math.isfinite(mean_square) else math.nan
