"""Standardising: one mean and one standard deviation of each channel of the training split.

Axes: C channels, N values of one.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from vgexp import metrics

CHUNK = 1024
"""Examples that are in float64 at a time: a whole image set would take eight times its bytes."""


@final
class InputScale:
    """Inputs less the mean, over the standard deviation, of each channel of the training split.

    The divisor is the number of values; constant values are divided by 1.

    Args:
        train: raw inputs of the training split, floating or uint8.
        channel_axis: None: all are one channel.
    """

    def __init__(self, train: Tensor, channel_axis: int | None) -> None:
        rows_CN = train.reshape(1, -1)
        if channel_axis is not None:
            rows_CN = train.movedim(channel_axis, 0).flatten(1)
        moments = _byte_moments if train.dtype == torch.uint8 else metrics.row_moments
        mean_C, std_C = moments(rows_CN)
        constant_C = rows_CN.amin(1) == rows_CN.amax(1)
        shape = [1] * train.ndim
        if channel_axis is not None:
            shape[channel_axis] = -1
        self._mean = mean_C.reshape(shape)
        self._std = torch.where(constant_C, 1.0, std_C).reshape(shape)

    def __call__(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """Computed in float64, then rounded."""
        scaled = torch.empty(inputs.shape, dtype=dtype)
        for start in range(0, len(inputs), CHUNK):
            rows = slice(start, start + CHUNK)
            scaled[rows] = (inputs[rows].double() - self._mean) / self._std
        return scaled


def _byte_moments(rows_CN: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each row, from how often each of 256 values is.

    With S_k the sum of k-th powers, a whole number: S_1 / N and sqrt(N S_2 - S_1^2) / N.
    """
    value_V = torch.arange(256)
    means, stds = [], []
    for row_N in rows_CN:
        count_V = torch.bincount(row_N, minlength=256)
        n = len(row_N)
        first, second = (int((count_V * value_V**k).sum()) for k in (1, 2))
        means.append(first / n)
        # Python's whole numbers: N S_2 exceeds 64 bits.
        stds.append(math.sqrt((n * second - first**2) / n**2))
    return torch.tensor(means, dtype=torch.float64), torch.tensor(stds, dtype=torch.float64)
