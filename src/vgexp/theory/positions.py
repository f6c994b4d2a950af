"""Computes how alike z or h is at two positions, of one image and of two images.

A convolution adds the second moments of the positions that its kernel covers, of p and p + d with
one shift for both, so that every distance d is a matter of its own (Xiao 2018, eq. 2.6); stride s
makes it d / s. Distances are those that are left at the last resolution. Where there are many, some
of them stand for their neighbours, and some examples for all.

Axes: B examples, S those that stand for them, D distances, H rows, W columns, 2 rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_DISTANCES = 32
MOST_NUMBERS = 2**16
"""Of a table of second moments, beyond which fewer examples stand for all."""
FEWEST_EXAMPLES = 4


@dataclass(frozen=True)
class Distances:
    """One of d and -d each, at the last resolution; the first is 0."""

    step_D2: Tensor
    weight_D: Tensor
    """How many ordered distances each stands for, by pairs of positions."""

    def __len__(self) -> int:
        return len(self.step_D2)

    def moved(self, x_SHW: Tensor, stride: int) -> Tensor:
        """x at p + d [S, D, H, W], 0 outside, where a step of the last resolution is `stride`."""
        height, width = x_SHW.shape[-2:]
        row_DH = torch.arange(height) + stride * self.step_D2[:, :1]
        column_DW = torch.arange(width) + stride * self.step_D2[:, 1:]
        is_row = (row_DH >= 0) & (row_DH < height)
        is_column = (column_DW >= 0) & (column_DW < width)
        place_DHW = (
            row_DH.clamp(0, height - 1)[:, :, None] * width
            + column_DW.clamp(0, width - 1)[:, None, :]
        )
        inside_DHW = is_row[:, :, None] & is_column[:, None, :]
        return x_SHW.flatten(1)[:, place_DHW] * inside_DHW

    def mean(self, x_SDHW: Tensor, stride: int) -> Tensor:
        """[S]: the mean over all pairs of positions."""
        inside = self.moved(torch.ones_like(x_SDHW[:1, 0]), stride)[0].sum((1, 2))
        total_S = (x_SDHW.sum((2, 3)) * self.weight_D).sum(1)
        return total_S / (inside * self.weight_D).sum()


def distances(height: int, width: int) -> Distances:
    """Lists distances between positions of images of one size."""
    rows, columns = torch.meshgrid(
        torch.arange(height), torch.arange(1 - width, width), indexing="ij"
    )
    all_N2 = torch.stack((rows, columns), -1).flatten(0, 1)
    is_half = (all_N2[:, 0] > 0) | (all_N2[:, 1] > 0)
    half_N2 = all_N2[is_half]
    half_N2 = half_N2[half_N2.square().sum(1).argsort(stable=True)]
    blocks = half_N2.tensor_split(min(len(half_N2), MOST_DISTANCES - 1)) if len(half_N2) else ()
    sizes = torch.tensor([height, width])
    steps, weights = [torch.zeros(2, dtype=torch.int64)], [1.0]
    for block in blocks:
        pairs = (sizes - block.abs()).prod(1)
        middle = len(block) // 2
        steps.append(block[middle])
        weights.append(2 * float(pairs.sum()) / float(pairs[middle]))
    return Distances(torch.stack(steps), torch.tensor(weights, dtype=torch.float64))


@dataclass(frozen=True)
class Alike:
    """Second moments of p and p + d, for examples with themselves and with the next."""

    own_SDHW: Tensor
    other_SDHW: Tensor

    def each(self, f: Callable[[Tensor, bool], Tensor]) -> Alike:
        """f of both tables, and whether it is the other's."""
        return Alike(f(self.own_SDHW, False), f(self.other_SDHW, True))


def standing(num_examples: int, num_distances: int, num_positions: int) -> Tensor:
    """Chooses examples [S] that stand for all, evenly spaced."""
    most = max(MOST_NUMBERS // (num_distances * num_positions), FEWEST_EXAMPLES)
    num = min(num_examples, most)
    return torch.arange(num) * num_examples // num


def convolved(x_BHW: Tensor, taps: Tensor, stride: int) -> Tensor:
    """Adds up the positions that a kernel covers, with zeros around the image."""
    kernel = taps[None, None]
    return F.conv2d(x_BHW[:, None], kernel, None, stride, taps.shape[0] // 2)[:, 0]


def convolved_back(x_BHW: Tensor, taps: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Does the same in the backward pass, to images of `size`."""
    kernel, padding = taps.shape[0], taps.shape[0] // 2
    least = [(num - 1) * stride - 2 * padding + kernel for num in x_BHW.shape[1:]]
    missing = (size[0] - least[0], size[1] - least[1])
    weight = taps[None, None]
    return F.conv_transpose2d(x_BHW[:, None], weight, None, stride, padding, missing)[:, 0]
