"""Data of the set `forums`, and the trainings and goals that its loops share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, batches_of, explained_goal, mean_goal, split
from zoo.loops.loop import Batch, Goal, LossFunction, Parts

Rows = tuple[Batch, Batch]
"""The rows to train on, and those that are kept back."""
Draw = Callable[[int], Batch]


@cache
def _digits() -> Batch:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x).float() / 16, torch.tensor(y)


def figures(*, as_images: bool = False) -> Rows:
    """Handwritten digits from 0 to 1, (N, 64) or (N, 1, 8, 8), in random order; ten classes."""
    x, y = _digits()
    order = torch.randperm(len(x))
    x, y = x[order], y[order]
    return split(x.reshape(-1, 1, 8, 8) if as_images else x, y, 400)


def spirals(num: int = 1500, turns: float = 2.2) -> Rows:
    """Points of two spirals that wind around each other; the spiral is the class."""
    y = torch.randint(2, (num,))
    along = torch.rand(num).sqrt()
    angle = math.tau * turns * along / 1.3 + math.pi * y
    x = along[:, None] * torch.stack((angle.cos(), angle.sin()), 1) * 2
    return split(x + 0.03 * torch.randn(num, 2), y, 400)


def waves(num: int = 1500, columns: int = 8) -> Rows:
    """Standard normal columns and a smooth function of some of them, standardised, (N, 1)."""
    x = torch.randn(num, columns)
    y = (1.5 * x[:, 0]).sin() + 0.5 * x[:, 1] * x[:, 2] + 0.7 * x[:, 3]
    y = (y - y.mean()) / y.std()
    return split(x, y[:, None], 300)


def sales(num: int = 1500) -> Rows:
    """Rooms, income, age and distance of houses in their own units, and prices, (N, 1).

    Prices are standardised; the columns are of the sizes 5, 60000, 40 and 3000.
    """
    z = torch.randn(num, 4)
    sizes = torch.tensor([1.5, 2e4, 15.0, 1200.0])
    x = torch.tensor([5.0, 6e4, 40.0, 3000.0]) + sizes * z
    y = z[:, 0] + (1.3 * z[:, 1]).tanh() - 0.6 * z[:, 2] * z[:, 3]
    return split(x, ((y - y.mean()) / y.std())[:, None], 300)


def boards(num: int = 700, side: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images (N, 1, S, S) of a bright rectangle, its mask, and its box from 0 to 1.

    A box (N, 4) is left, top, right, bottom.
    """
    start = torch.randint(0, side - 5, (num, 2))
    sizes = torch.randint(3, 6, (num, 2))
    place = torch.arange(side)
    inside = [
        (place >= start[:, i, None]) & (place < (start + sizes)[:, i, None]) for i in range(2)
    ]
    mask = (inside[1][:, :, None] & inside[0][:, None, :]).float()[:, None]
    box = torch.cat((start, start + sizes), 1).float() / side
    return mask + 0.3 * torch.randn(num, 1, side, side), mask, box


def masks() -> Rows:
    """Images of a rectangle and its mask, (N, 1, 12, 12)."""
    x, mask, _ = boards()
    return split(x, mask, 150)


def tagged(num: int, length: int = 12) -> Batch:
    """Words (N, L) of 24, and for each a tag of 6 that it and the word before decide."""
    words = torch.randint(24, (num, length))
    before = torch.cat((torch.zeros(num, 1, dtype=torch.long), words[:, :-1]), 1)
    return words, (words % 3) * 2 + (before % 2)


def spoken(num: int, length: int = 16, vocabulary: int = 11) -> Tensor:
    """Tokens (N, L): each follows from the two before it."""
    tokens = torch.randint(vocabulary, (num, 2))
    while tokens.shape[1] < length:
        follows = (2 * tokens[:, -1] + tokens[:, -2] + 1) % vocabulary
        tokens = torch.cat((tokens, follows[:, None]), 1)
    return tokens


def told_first(num: int, length: int, symbols: int = 4) -> Batch:
    """Sequences (N, L, S + 1) of noise behind a symbol, which is the class."""
    y = torch.randint(symbols, (num,))
    x = torch.zeros(num, length, symbols + 1)
    x[:, 1:, symbols] = 0.5 * torch.randn(num, length - 1)
    x[torch.arange(num), 0, y] = 1
    return x, y


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths with an activation between each two."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), act()]
    return nn.Sequential(*layers[:-1])


def small_cnn(outputs: int, width: int = 8) -> nn.Sequential:
    """Two convolutions and a linear layer, for (N, 1, 8, 8)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * width, outputs),
    )


def dense_cnn(width: int = 8) -> nn.Sequential:
    """Three convolutions that keep the size, one channel in and out."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(width, 1, 3, padding=1),
    )


def fit(
    data: Rows,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction,
    goal: Goal,
    steps: int,
    *,
    size: int = 64,
    step: Callable[..., None] | None = None,
    probe: dict[str, Any] | None = None,
) -> Parts:
    """A training on batches of the first rows."""
    return Parts(model, optimizer, loss, batches_of(*data[0], steps, size), goal, step, probe)


def stream(
    draw: Draw,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction,
    goal: Goal,
    steps: int,
    *,
    size: int = 64,
    step: Callable[..., None] | None = None,
) -> Parts:
    """A training on batches that are drawn one by one."""

    def batches() -> Iterator[Batch]:
        for _ in range(steps):
            yield draw(size)

    return Parts(model, optimizer, loss, batches(), goal, step)


def right(data: Rows, enough: float) -> Goal:
    """The share of the rows kept back that are classified rightly."""
    return accuracy_goal(*data[1], enough)


def explained(data: Rows, enough: float) -> Goal:
    """R squared on the rows kept back."""
    return explained_goal(*data[1], enough)


def covered(data: Rows, enough: float, middle: float = 0.0) -> Goal:
    """Intersection over union of the masks that outputs above `middle` make."""
    x, mask = data[1]

    def share(model: nn.Module) -> Tensor:
        found = (model(x) > middle).float()
        return (found * mask).sum() / (found + mask).clamp(max=1).sum()

    return mean_goal(share, enough)


def next_goal(enough: float, vocabulary: int = 11) -> Goal:
    """The share of tokens that are told from those before, from the third on."""
    tokens = spoken(200, vocabulary=vocabulary)

    def share(model: nn.Module) -> Tensor:
        said = model(tokens[:, :-1])[:, 1:].argmax(-1)
        return (said == tokens[:, 2:]).float().mean()

    return mean_goal(share, enough)


def next_batch(num: int) -> Batch:
    """Tokens to read, and those that follow from the third on."""
    tokens = spoken(num)
    return tokens[:, :-1], tokens[:, 2:]


def next_loss(logits: Tensor, follows: Tensor) -> Tensor:
    """Cross-entropy of (N, L, K) logits with what follows, from the third token on."""
    return nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), follows.flatten())
