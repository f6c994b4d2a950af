"""Data of the half by which rules may be set: digits, tumours, a sum of sines, first symbols."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn

from zoo.loops.batches import (
    accuracy_goal,
    batches_of,
    explained_goal,
    sign_goal,
    split,
    standardised,
)
from zoo.loops.loop import Batch, LossFunction, Parts


@cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 images of 8 by 8 as `x_NI` of mean 0 and deviation 1, and their labels, shuffled."""
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x_NI = torch.tensor(x, dtype=torch.float32)
    return ((x_NI - x_NI.mean()) / x_NI.std())[order], torch.tensor(y)[order]


@cache
def tumours(is_raw: bool = False) -> tuple[Tensor, Tensor]:
    """569 rows of 30 measures, standardised or raw, and whether each is benign, as floats."""
    x, y = load_breast_cancer(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x_NI = torch.tensor(x, dtype=torch.float32)[order]
    return x_NI if is_raw else standardised(x_NI), torch.tensor(y).float()[order]


def waves(num: int) -> Batch:
    """x in [-1, 1] and a wave of 3 inputs, `y_N1` of deviation about 0.8."""
    x = 2 * torch.rand(num, 3) - 1
    return x, torch.sin(math.pi * x[:, :1]) + x[:, 1:2] * x[:, 2:]


def first_symbols(steps: int, length: int, size: int = 64) -> Iterator[Batch]:
    """One-hot sequences `x_NTK` of 4 symbols; the label is the first one."""
    for _ in range(steps):
        symbols = torch.randint(4, (size, length))
        yield nn.functional.one_hot(symbols, 4).float(), symbols[:, 0]


# ---------------------------------------------------------------- trainings


def read_digits(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 300,
    enough: float = 0.88,
    scale: float = 1.0,
    **rest: Any,
) -> Parts:
    """A classifier of digits; `enough` is the accuracy on 300 held out."""
    (x, y), (x_test, y_test) = split(*digits(), 300)
    batches = batches_of(scale * x, y, steps)
    goal = accuracy_goal(scale * x_test, y_test, enough)
    return Parts(
        model, optimizer, loss or nn.CrossEntropyLoss(), batches, goal, num_classes=10, **rest
    )


def tell_tumours(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 300,
    is_raw: bool = False,
    middle: float = 0.0,
    **rest: Any,
) -> Parts:
    """A detector with one output; 0.9 of 150 held out have to be right."""
    (x, y), (x_test, y_test) = split(*tumours(is_raw), 150)
    goal = sign_goal(x_test, y_test, 0.9, middle)
    batches = batches_of(x, y[:, None], steps, 32)
    return Parts(model, optimizer, loss or nn.BCEWithLogitsLoss(), batches, goal, **rest)


def fit_waves(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 400,
    shift: float = 0.0,
    enough: float = 0.8,
    **rest: Any,
) -> Parts:
    """A regression; `enough` is the share of the variance explained."""
    x, y = waves(1000)
    x_test, y_test = waves(500)
    return Parts(
        model,
        optimizer,
        loss or nn.MSELoss(),
        batches_of(x, y + shift, steps),
        explained_goal(x_test, y_test + shift, enough),
        **rest,
    )


def recall_first(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    length: int = 20,
    steps: int = 300,
    enough: float = 0.9,
    **rest: Any,
) -> Parts:
    """A classifier of sequences by their first symbol; `enough` is the accuracy on 500."""
    ((x_test, y_test),) = first_symbols(1, length, 500)
    goal = accuracy_goal(x_test, y_test, enough)
    batches = first_symbols(steps, length)
    return Parts(model, optimizer, nn.CrossEntropyLoss(), batches, goal, num_classes=4, **rest)
