"""Data of the set `faults`, and the usual ways to train and to measure on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from sklearn import datasets
from torch import nn

from zoo.loops.batches import accuracy_goal, batches_of, explained_goal, sign_goal, split
from zoo.loops.loop import Batch, Goal, LossFunction, Parts

Halves = tuple[Batch, Batch]


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths with an activation after each but the last."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), act()]
    return nn.Sequential(*layers[:-1])


def small_cnn(classes: int = 10) -> nn.Sequential:
    """For images (N, 1, 8, 8)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, classes),
    )


@cache
def _table(name: str) -> Batch:
    """Rows of a table of scikit-learn in one fixed random order; targets are as they are."""
    loaded: Any = getattr(datasets, f"load_{name}")()
    order = torch.randperm(len(loaded.data), generator=torch.Generator().manual_seed(7))
    x = torch.as_tensor(loaded.data, dtype=torch.float32)[order]
    return x, torch.as_tensor(loaded.target)[order]


def digits(*, as_images: bool = False, top: float = 1.0) -> Halves:
    """1,797 written digits (64 pixels from 0 to `top`) and their classes."""
    x, y = _table("digits")
    x = x / 16 * top
    return split(x.reshape(-1, 1, 8, 8) if as_images else x, y, 360)


def tumours() -> Batch:
    """569 rows of 30 columns as they were measured (0.001 to 4,000); labels 0.0 and 1.0."""
    x, y = _table("breast_cancer")
    return x, y.float()


def moons(num: int = 1000, noise: float = 0.12) -> Halves:
    """Two half circles in the plane, one inside the other; two classes."""
    y = torch.randint(2, (num,))
    turn = torch.rand(num) * torch.pi
    x = torch.stack((turn.cos(), turn.sin()), 1)
    x = torch.where(y[:, None] == 1, torch.stack((1 - x[:, 0], 0.5 - x[:, 1]), 1), x)
    return split(x + noise * torch.randn(num, 2), y, num // 4)


def prices(num: int = 1200) -> Halves:
    """Eight columns of unit scale, and a price (mean about 0, deviation about 1) made of them."""
    x = torch.randn(num, 8)
    made = x[:, 0] + 0.8 * x[:, 1] * x[:, 2] - 0.7 * x[:, 3].abs() + 0.6 * (2 * x[:, 4]).sin()
    return split(x, (made - made.mean()) / made.std(), num // 4)


def first_of(num: int, length: int, kinds: int = 4) -> Batch:
    """Sequences (N, T, kinds + 1): the first symbol is to be told at the end; then only noise."""
    y = torch.randint(kinds, (num,))
    x = torch.zeros(num, length, kinds + 1)
    x[torch.arange(num), 0, y] = 1
    x[:, 1:, kinds] = 0.5 * torch.randn(num, length - 1)
    return x, y


WORDS, NEGATION = 40, 0


def tagged(num: int, length: int = 12) -> Batch:
    """Words (N, T), and a tag each: the word's own kind of 3, turned by one behind a negation."""
    x = torch.randint(WORDS, (num, length))
    x = torch.where(torch.rand(num, length) < 0.15, NEGATION, x)
    behind = torch.cat((torch.zeros(num, 1, dtype=torch.bool), x[:, :-1] == NEGATION), 1)
    return x, (x % 3 + behind.long()) % 3


def reviews(num: int, length: int = 16) -> Batch:
    """Words (N, T), and whether those of the first half of the list are in the majority."""
    lean = 0.2 + 0.6 * torch.rand(num, 1)
    is_good = torch.rand(num, length) < lean
    x = torch.randint(WORDS // 2, (num, length)) + torch.where(is_good, 0, WORDS // 2)
    return x, (is_good.sum(1) > length // 2).long()


def waves(num: int, length: int = 32) -> Batch:
    """Signals (N, 1, T): a sine, a square wave or a saw of any phase in noise; three classes."""
    y = torch.randint(3, (num, 1))
    time = torch.arange(length) / 8 + torch.rand(num, 1)
    sine = (2 * torch.pi * time).sin()
    shapes = torch.where(y == 0, sine, torch.where(y == 1, sine.sign(), 2 * (time % 1) - 1))
    return (shapes + 0.15 * torch.randn(num, length))[:, None], y[:, 0]


def discs(num: int = 400, noise: float = 0.7) -> Halves:
    """Noisy images (N, 1, 12, 12) of a bright disc, and its mask as zeros and ones."""
    grid = torch.arange(12.0)
    centre, radius = 2 + 8 * torch.rand(num, 2, 1, 1), 2 + 2 * torch.rand(num, 1, 1)
    apart = (grid[:, None] - centre[:, 0]).square() + (grid - centre[:, 1]).square()
    mask = (apart < radius.square()).float()[:, None]
    return split(mask + noise * torch.randn_like(mask), mask, num // 4)


def fit(
    data: Halves,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction,
    goal: Goal,
    *,
    steps: int,
    size: int = 64,
    **others: Any,
) -> Parts:
    """A training on batches of the first half."""
    return Parts(model, optimizer, loss, batches_of(*data[0], steps, size), goal, **others)


def stream(
    draw: Callable[[int], Batch],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction,
    goal: Goal,
    *,
    steps: int,
    size: int = 64,
    **others: Any,
) -> Parts:
    """A training on batches that are drawn as they are needed."""
    return Parts(model, optimizer, loss, _drawn(draw, steps, size), goal, **others)


def _drawn(draw: Callable[[int], Batch], steps: int, size: int) -> Iterator[Batch]:
    for _ in range(steps):
        yield draw(size)


def right(data: Halves, enough: float) -> Goal:
    """The share of the rows kept back that are classified rightly."""
    return accuracy_goal(*data[1], enough)


def explained(data: Halves, enough: float) -> Goal:
    """R squared on the rows kept back."""
    return explained_goal(*data[1], enough)


def told(data: Halves, enough: float, middle: float = 0.0) -> Goal:
    """The share of zeros and ones of the rows kept back that an output above `middle` tells."""
    return sign_goal(*data[1], enough, middle)
