"""Data of the half by which rules may be set: digits, a sine, tumours, delayed symbols."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn

from zoo.loops.loop import Batch, Goal


@cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 images of 8 by 8 as `x_NI` of mean 0 and deviation 1, and their labels, shuffled."""
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x_NI = torch.tensor(x, dtype=torch.float32)
    return ((x_NI - x_NI.mean()) / x_NI.std())[order], torch.tensor(y)[order]


@cache
def tumours() -> tuple[Tensor, Tensor]:
    """569 rows of 30 measures, standardised, and whether each is benign, as floats."""
    x, y = load_breast_cancer(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x_NI = torch.tensor(x, dtype=torch.float32)
    return ((x_NI - x_NI.mean(0)) / x_NI.std(0))[order], torch.tensor(y).float()[order]


def batches_of(x: Tensor, y: Tensor, steps: int, size: int = 64) -> Iterator[Batch]:
    """Batches drawn with replacement."""
    for _ in range(steps):
        index = torch.randint(len(x), (size,))
        yield x[index], y[index]


def split(x: Tensor, y: Tensor, num_tested: int) -> tuple[Batch, Batch]:
    """The rows to train on, and the last `num_tested`."""
    return (x[:-num_tested], y[:-num_tested]), (x[-num_tested:], y[-num_tested:])


def accuracy_goal(x: Tensor, y: Tensor, enough: float) -> Goal:
    """Accuracy of the largest of K outputs."""

    def score(model: nn.Module) -> float:
        return float((model(x).argmax(-1) == y).float().mean())

    return Goal(score, enough)


def sine(steps: int, size: int = 64, noise: float = 0.05) -> Iterator[Batch]:
    """x in [-1, 1] and sin(3 x) of 3 inputs together, as `y_N1`."""
    for _ in range(steps):
        x = 2 * torch.rand(size, 3) - 1
        y = torch.sin(math.pi * x[:, :1]) + x[:, 1:2] * x[:, 2:]
        yield x, y + noise * torch.randn_like(y)


def delayed(steps: int, length: int = 20, classes: int = 4, size: int = 64) -> Iterator[Batch]:
    """One-hot sequences `x_NTK` of symbols; the label is the first one."""
    for _ in range(steps):
        symbols = torch.randint(classes, (size, length))
        yield nn.functional.one_hot(symbols, classes).float(), symbols[:, 0]
