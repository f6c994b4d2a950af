"""Data of the fresh loops: spirals, stripes, spots, a pendulum, customers, keywords, ratings."""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, batches_of, explained_goal, split
from zoo.loops.loop import Batch, Goal, LossFunction, Parts

LETTERS = sorted({*"".join(keyword.kwlist)} | {" "})
"""The characters of Python's keywords, and the space between them."""


def spirals(num: int = 1500) -> tuple[Tensor, Tensor]:
    """Points `x_N2` of three arms that wind once around the origin, and the arm."""
    arm, along = torch.randint(3, (num,)), torch.rand(num)
    turn = 2 * math.pi * (along + arm / 3) + 0.12 * torch.randn(num)
    x = (0.2 + 1.6 * along)[:, None] * torch.stack((turn.cos(), turn.sin()), 1)
    return x, arm


def stripes(num: int = 1200, side: int = 12) -> tuple[Tensor, Tensor]:
    """Colour images `x_N3HW` of stripes in four directions under noise, and the direction."""
    kind = torch.randint(4, (num,))
    angle = (kind * math.pi / 4)[:, None, None]
    at = torch.arange(side).float()
    along = at[None, :, None] * angle.cos() + at[None, None, :] * angle.sin()
    wave = (1.5 * along + 6.3 * torch.rand(num, 1, 1)).sin()
    return wave[:, None] * (0.4 + torch.rand(num, 3, 1, 1)) + 0.5 * torch.randn(
        num, 3, side, side
    ), kind


def spots(num: int = 1000, side: int = 10) -> Tensor:
    """Images `x_N1HW` in [0, 1] of one bright spot anywhere."""
    at = torch.arange(side).float()
    row, column = side * torch.rand(num, 1, 1), side * torch.rand(num, 1, 1)
    apart = (at[None, :, None] - row).square() + (at[None, None, :] - column).square()
    return (-apart / 6).exp()[:, None]


def pendulum(num: int = 1500) -> tuple[Tensor, Tensor]:
    """Amplitude, damping and time `x_N3`, all in [-1, 1], and the angle then, `y_N1`."""
    x = 2 * torch.rand(num, 3) - 1
    amplitude, damping, moment = 1 + 0.5 * x[:, 0], 0.3 + 0.2 * x[:, 1], 2 * (x[:, 2] + 1)
    return x, (amplitude * (-damping * moment).exp() * (2 * moment).cos())[:, None]


def customers(num: int = 1500, columns: int = 16, kinds: int = 5) -> tuple[Tensor, Tensor]:
    """Rows of normal columns, and the group in which a fixed random tanh net puts them."""
    draw = torch.Generator().manual_seed(11)
    first = torch.randn(columns, 12, generator=draw) / 2
    second = torch.randn(12, kinds, generator=draw)
    x = torch.randn(num, columns)
    return x, ((x @ first).tanh() @ second).argmax(1)


def keyword_text(steps: int, length: int = 16, size: int = 32) -> Iterator[Batch]:
    """Characters `x_NT` out of keywords in any order, and the next ones."""
    codes = {letter: i for i, letter in enumerate(LETTERS)}
    for _ in range(steps):
        rows = []
        for _ in range(size):
            order = torch.randperm(len(keyword.kwlist))[:12].tolist()
            line = " ".join(keyword.kwlist[i] for i in order)
            rows.append([codes[letter] for letter in line[: length + 1]])
        tokens = torch.tensor(rows)
        yield tokens[:, :-1], tokens[:, 1:]


def reversals(steps: int, length: int = 8, size: int = 48, kinds: int = 12) -> Iterator[Batch]:
    """Tokens `x_NT`, and the same in the other order."""
    for _ in range(steps):
        x = torch.randint(kinds, (size, length))
        yield x, x.flip(1)


def first_signs(steps: int, length: int, size: int = 48) -> Iterator[Batch]:
    """Series `x_NT1` of noise that begin with 1 or -1, and which, as a float in {0, 1}."""
    for _ in range(steps):
        x, y = 0.3 * torch.randn(size, length, 1), torch.randint(2, (size,)).float()
        x[:, 0, 0] = 2 * y - 1
        yield x, y


def ratings(steps: int, users: int = 60, items: int = 40, size: int = 128) -> Iterator[Batch]:
    """Pairs `x_N2` of a user and an item, and the rating `y_N`: a product of 3 fixed factors."""
    draw = torch.Generator().manual_seed(5)
    of_users = torch.randn(users, 3, generator=draw)
    of_items = torch.randn(items, 3, generator=draw)
    for _ in range(steps):
        x = torch.stack((torch.randint(users, (size,)), torch.randint(items, (size,))), 1)
        yield x, (of_users[x[:, 0]] * of_items[x[:, 1]]).sum(1) / 1.7


def classify(
    data: tuple[Tensor, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    enough: float,
    steps: int = 200,
    **others: Any,
) -> Parts:
    """Labels, of which 300 rows are held back for the score."""
    (x, y), held_back = split(*data, 300)
    return Parts(
        model,
        optimizer,
        loss or nn.CrossEntropyLoss(),
        batches_of(x, y, steps),
        accuracy_goal(*held_back, enough),
        num_classes=int(y.max()) + 1,
        **others,
    )


def regress(
    data: tuple[Tensor, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction | None = None,
    *,
    enough: float,
    steps: int = 200,
    **others: Any,
) -> Parts:
    """A regression, of which 300 rows are held back for the score."""
    (x, y), held_back = split(*data, 300)
    batches = batches_of(x, y, steps)
    goal = explained_goal(*held_back, enough)
    return Parts(model, optimizer, loss or nn.MSELoss(), batches, goal, **others)


def stream(
    make: Callable[[int], Iterator[Batch]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction,
    score: Callable[[Tensor, Tensor], Tensor],
    *,
    enough: float,
    steps: int = 200,
    **others: Any,
) -> Parts:
    """Batches that are drawn anew by `make(steps)`; `score(output, y)` is of five more."""
    tested = [*make(5)]
    x, y = (torch.cat([batch[i] for batch in tested]) for i in (0, 1))
    goal = Goal(lambda model: float(score(model(x), y)), enough)
    return Parts(model, optimizer, loss, make(steps), goal, **others)


def share_right(output: Tensor, y: Tensor) -> Tensor:
    """The share of labels that the largest of the last axis names."""
    return (output.argmax(-1) == y).float().mean()


def share_of_signs(output: Tensor, y: Tensor) -> Tensor:
    """The share of labels 0 and 1 that the sign tells."""
    return ((output.reshape(y.shape) > 0).float() == y).float().mean()


def share_explained(output: Tensor, y: Tensor) -> Tensor:
    """R squared."""
    return 1 - (output.reshape(y.shape) - y).square().mean() / y.var()


def cross_entropy_of_tokens(output: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of outputs `NTK` and tokens `NT`."""
    return nn.functional.cross_entropy(output.flatten(0, 1), y.flatten())
