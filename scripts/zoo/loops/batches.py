"""Batches, and what loops measure of their models."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from zoo.loops.loop import Batch, Goal


def batches_of(x: Tensor, y: Tensor, steps: int, size: int = 64) -> Iterator[Batch]:
    """Batches drawn with replacement."""
    for _ in range(steps):
        index = torch.randint(len(x), (size,))
        yield x[index], y[index]


def split(x: Tensor, y: Tensor, num_tested: int) -> tuple[Batch, Batch]:
    """The rows to train on, and the last `num_tested`."""
    return (x[:-num_tested], y[:-num_tested]), (x[-num_tested:], y[-num_tested:])


def standardised(x: Tensor) -> Tensor:
    """Columns of mean 0 and standard deviation 1; a constant one is 0."""
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-6)


def accuracy_goal(x: Tensor, y: Tensor, enough: float) -> Goal:
    """The share of labels that the largest of K outputs names."""

    def score(model: nn.Module) -> float:
        return float((model(x).argmax(-1) == y).float().mean())

    return Goal(score, enough)


def sign_goal(x: Tensor, y: Tensor, enough: float, middle: float = 0.0) -> Goal:
    """The share of labels 0 and 1 that an output above `middle` tells."""

    def score(model: nn.Module) -> float:
        return float(((model(x).reshape(y.shape) > middle).float() == y).float().mean())

    return Goal(score, enough)


def explained_goal(x: Tensor, y: Tensor, enough: float) -> Goal:
    """R squared: the share of the targets' variance that the outputs explain."""

    def score(model: nn.Module) -> float:
        apart = (model(x).float().reshape(y.shape) - y).square().mean()
        return float(1 - apart / (y - y.mean(0)).square().mean())

    return Goal(score, enough)


def mean_goal(value: Callable[[nn.Module], Tensor], enough: float, *, higher: bool = True) -> Goal:
    """Any number that is computed from the model."""
    return Goal(lambda model: float(value(model)), enough, higher)
