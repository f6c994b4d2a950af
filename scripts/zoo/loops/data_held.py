"""Data of the half that is only reported: drawn shapes, wines, diabetes, oscillations, tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_diabetes, load_wine
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, batches_of, explained_goal, split, standardised
from zoo.loops.loop import Batch, Goal, LossFunction, Parts

SIDE = 12
NUM_TOKENS = 11


@cache
def shapes(num: int = 1200) -> tuple[Tensor, Tensor, Tensor]:
    """Images `x_N1HW` of a disc, a ring, a cross or a bar in noise, the kind, and its mask."""
    draw = torch.Generator().manual_seed(7)
    kind = torch.randint(4, (num,), generator=draw)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    middle = 4 + 4 * torch.rand(num, 2, 1, 1, generator=draw)
    y, x = rows - middle[:, 0], columns - middle[:, 1]
    far = (y.square() + x.square()).sqrt()
    forms = torch.stack(
        (
            far < 3,
            (far < 4) & (far > 2.4),
            ((y.abs() < 1) | (x.abs() < 1)) & (far < 5),
            (y.abs() < 1.2) & (x.abs() < 5),
        ),
        1,
    )
    mask = forms[torch.arange(num), kind].float()
    image = 2 * mask - 0.6 + 0.4 * torch.randn(num, SIDE, SIDE, generator=draw)
    return image[:, None], kind, mask[:, None]


@cache
def wines(is_raw: bool = False) -> tuple[Tensor, Tensor]:
    """178 rows of 13 measures, and the grower."""
    x, y = load_wine(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x_NI = torch.tensor(x, dtype=torch.float32)[order]
    return x_NI if is_raw else standardised(x_NI), torch.tensor(y)[order]


@cache
def patients() -> tuple[Tensor, Tensor]:
    """442 rows of 10 measures and the disease's progression, `y_N1`, all standardised."""
    x, y = load_diabetes(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x_NI = standardised(torch.tensor(x, dtype=torch.float32))[order]
    return x_NI, standardised(torch.tensor(y, dtype=torch.float32)[:, None])[order]


def oscillations(num: int, length: int = 16) -> Batch:
    """Series `x_NT1` of a sine of any frequency and phase, and the next value, `y_N1`."""
    frequency, phase = 0.2 + torch.rand(num, 1), 2 * math.pi * torch.rand(num, 1)
    values = torch.sin(frequency * torch.arange(length + 1) + phase)
    return values[:, :-1, None], values[:, -1:]


def counting(steps: int, length: int = 10, size: int = 48) -> Iterator[Batch]:
    """Sequences `x_NT` that count on modulo 11 by steps of their own, and each next token."""
    for _ in range(steps):
        start, by = torch.randint(NUM_TOKENS, (size, 1)), torch.randint(1, 4, (size, 1))
        tokens = (start + by * torch.arange(length + 1)) % NUM_TOKENS
        yield tokens[:, :-1], tokens[:, 1:]


# ---------------------------------------------------------------- trainings


def name_shapes(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 250,
    enough: float = 0.85,
    **rest: Any,
) -> Parts:
    """A classifier of images; `enough` is the accuracy on 200."""
    x, y, _ = shapes()
    batches = batches_of(x[:1000], y[:1000], steps, 48)
    goal = accuracy_goal(x[1000:], y[1000:], enough)
    return Parts(
        model, optimizer, loss or nn.CrossEntropyLoss(), batches, goal, num_classes=4, **rest
    )


def mark_shapes(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 200,
    enough: float = 0.6,
    **rest: Any,
) -> Parts:
    """A segmentation by logits; `enough` is the share of the mask's variance explained."""
    x, _, mask = shapes()
    batches = batches_of(x[:1000], mask[:1000], steps, 32)
    goal = explained_goal(x[1000:], mask[1000:], enough)
    score = goal.score
    goal = type(goal)(lambda m: score(nn.Sequential(m, nn.Sigmoid())), enough)
    return Parts(model, optimizer, loss or nn.BCEWithLogitsLoss(), batches, goal, **rest)


def name_wines(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 250,
    is_raw: bool = False,
    scale: float = 1.0,
    **rest: Any,
) -> Parts:
    """A classifier of rows; 0.9 of 50 held out have to be right."""
    (x, y), (x_test, y_test) = split(*wines(is_raw), 50)
    goal = accuracy_goal(scale * x_test, y_test, 0.9)
    batches = batches_of(scale * x, y, steps, 32)
    return Parts(
        model, optimizer, loss or nn.CrossEntropyLoss(), batches, goal, num_classes=3, **rest
    )


def follow_patients(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 300,
    enough: float = 0.3,
    **rest: Any,
) -> Parts:
    """A regression with much noise; of those it saw, `enough` of the variance is explained."""
    x, y = patients()
    goal = explained_goal(x, y, enough)
    return Parts(model, optimizer, loss or nn.MSELoss(), batches_of(x, y, steps), goal, **rest)


def forecast(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 300,
    length: int = 16,
    enough: float = 0.8,
    **rest: Any,
) -> Parts:
    """The next value of a series."""
    x, y = oscillations(2000, length)
    goal = explained_goal(*oscillations(500, length), enough)
    return Parts(model, optimizer, loss or nn.MSELoss(), batches_of(x, y, steps), goal, **rest)


def count_on(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    steps: int = 250,
    **rest: Any,
) -> Parts:
    """A language model, whose logits `z_NTK` the loss gets as `z_NKT`; 0.9 of last tokens."""
    ((x, y),) = counting(1, size=300)

    def score(model: nn.Module) -> float:
        return float((model(x)[:, :, -1].argmax(1) == y[:, -1]).float().mean())

    return Parts(
        model,
        optimizer,
        loss or nn.CrossEntropyLoss(),
        counting(steps),
        Goal(score, 0.9),
        num_classes=NUM_TOKENS,
        **rest,
    )
