"""Draws of one weight, and the rms of its entries at gain 1 (`std`).

For a kernel, each fan is multiplied by the kernel's number of positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from vgexp.inits.init import Draw


def between(bound: float) -> Draw:
    """U[-bound, bound], whatever the gain."""

    def draw(bias: Tensor, _gain: float, generator: Generator) -> None:
        nn.init.uniform_(bias, -bound, bound, generator=generator)

    return draw


def fan_in(weight: Tensor) -> int:
    """The number of inputs of each output."""
    return weight[0].numel()


def _mean_fan(weight: Tensor) -> float:
    """(fan_in + fan_out) / 2."""
    positions = weight[0, 0].numel()
    return (weight.shape[0] + weight.shape[1]) * positions / 2


def normal(std: Callable[[Tensor], float]) -> Draw:
    """N(0, (gain std(W))^2)."""

    def draw(weight: Tensor, gain: float, generator: Generator) -> None:
        nn.init.normal_(weight, 0.0, gain * std(weight), generator=generator)

    return draw


def uniform(std: Callable[[Tensor], float]) -> Draw:
    """U[-a, a], whose standard deviation a / sqrt(3) is gain std(W)."""

    def draw(weight: Tensor, gain: float, generator: Generator) -> None:
        bound = math.sqrt(3) * gain * std(weight)
        nn.init.uniform_(weight, -bound, bound, generator=generator)

    return draw


def orthogonal(weight: Tensor, gain: float, generator: Generator) -> None:
    """Fills a matrix with orthogonal rows of length gain; with more rows than columns, columns."""
    nn.init.orthogonal_(weight, gain, generator=generator)


def delta_orthogonal(weight: Tensor, gain: float, generator: Generator) -> None:
    """Fills a kernel's centre with an orthogonal matrix, the rest with 0 (Xiao 2018, Algorithm 2).

    With as many channels out as in, or more, its columns are orthonormal and the norm of each
    position's channels is kept (times the gain). The paper asks for that; with fewer, the rows are,
    and the norm of delta is kept on its way back. A stride passes over positions in either case.
    Of a matrix: `orthogonal`.
    """
    matrix = torch.empty(weight.shape[:2], dtype=weight.dtype, device=weight.device)
    nn.init.orthogonal_(matrix, gain, generator=generator)
    weight.zero_()
    by_position = weight.view(*matrix.shape, -1)
    by_position[:, :, by_position.shape[2] // 2] = matrix


def orthonormal(weight: Tensor, _gain: float, generator: Generator) -> None:
    """As `orthogonal` of gain 1, whatever the gain."""
    nn.init.orthogonal_(weight, generator=generator)


def orthonormal_std(weight: Tensor) -> float:
    """The rms of a matrix with orthonormal rows or columns."""
    return 1 / math.sqrt(max(weight.shape[0], fan_in(weight)))


def delta_std(weight: Tensor) -> float:
    """The rms of a kernel with an orthogonal matrix at one position and zeros elsewhere."""
    return 1 / math.sqrt(max(weight.shape[:2]) * weight[0, 0].numel())


def unit_std(_weight: Tensor) -> float:
    """1, whatever the fans."""
    return 1.0


def xavier_std(weight: Tensor) -> float:
    """sqrt(2 / (fan_in + fan_out))."""
    return 1 / math.sqrt(_mean_fan(weight))


def he_std(weight: Tensor) -> float:
    """sqrt(2 / fan_in)."""
    return math.sqrt(2 / fan_in(weight))


def lecun_std(weight: Tensor) -> float:
    """sqrt(1 / fan_in)."""
    return 1 / math.sqrt(fan_in(weight))


def torch_std(weight: Tensor) -> float:
    """The rms of U[-1/sqrt(fan_in), 1/sqrt(fan_in)], PyTorch's kaiming_uniform_(a=sqrt(5))."""
    return 1 / math.sqrt(3 * fan_in(weight))
