"""Data of the set `reports`: small stand-ins for what people of the reports had."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, batches_of, explained_goal, mean_goal, split
from zoo.loops.loop import Batch, Goal, LossFunction, Parts

Rows = tuple[Tensor, Tensor]
Halves = tuple[Batch, Batch]


@cache
def _digits() -> Rows:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def digits(*, scale: float = 1 / 16, as_images: bool = False) -> Halves:
    """Handwritten digits: 64 pixels, or (1, 8, 8), from 0 to 16 times `scale`; ten classes."""
    x, y = _digits()
    return split((x.reshape(-1, 1, 8, 8) if as_images else x) * scale, y, 397)


def friedman(num: int = 1200) -> Halves:
    """Friedman's function of five of ten uniform columns; targets from 0 to 30, (N, 1)."""
    x = torch.rand(num, 10)
    y = 10 * (math.pi * x[:, 0] * x[:, 1]).sin() + 20 * (x[:, 2] - 0.5) ** 2
    y = y + 10 * x[:, 3] + 5 * x[:, 4]
    return split(x, y[:, None], num // 5)


def rings(num: int = 1500) -> Halves:
    """Points of three rings that lie in each other, in the plane; the ring is the class."""
    y = torch.randint(3, (num,))
    angle = 2 * math.pi * torch.rand(num)
    radius = 0.4 + 0.6 * y + 0.06 * torch.randn(num)
    return split(torch.stack((radius * angle.cos(), radius * angle.sin()), 1), y, num // 5)


def arms(num: int = 1500, turns: float = 1.6) -> Halves:
    """Points of two arms of a spiral; the arm is the class."""
    y = torch.randint(2, (num,))
    t = torch.rand(num).sqrt()
    angle = 2 * math.pi * turns * t / 1.6 + math.pi * y
    x = torch.stack((t * angle.cos(), t * angle.sin()), 1) + 0.015 * torch.randn(num, 2)
    return split(2 * x, y, num // 5)


def bank(num: int = 1500, *, is_scaled: bool) -> Halves:
    """Age, income, balance, debt, years and visits in their own units; 0 or 1, (N, 1)."""
    z = torch.randn(num, 6)
    y = ((z[:, 0] * z[:, 1] > 0) | (z[:, 4] > 1)).float()[:, None]
    sizes = torch.tensor([12.0, 2.5e4, 4e4, 9e3, 6.0, 15.0])
    means = torch.tensor([45.0, 6e4, 3e4, 1.5e4, 11.0, 30.0])
    return split(z if is_scaled else z * sizes + means, y, num // 5)


def blobs(num: int = 400, size: int = 16) -> Halves:
    """Images of noise with a bright disc, (N, 1, 16, 16), and the mask of the disc."""
    place = torch.arange(size, dtype=torch.float32)
    centre = 3 + (size - 6) * torch.rand(num, 2)
    radius = 2 + 2 * torch.rand(num, 1, 1)
    down = (place[None, :, None] - centre[:, 0, None, None]).square()
    along = (place[None, None, :] - centre[:, 1, None, None]).square()
    mask = (down + along < radius.square()).float()[:, None]
    return split(mask + 0.7 * torch.randn(num, 1, size, size), mask, num // 5)


def sums_modulo(num: int, length: int = 12, base: int = 7) -> Tensor:
    """Tokens (N, L), each the sum of the two before it modulo 7: a language to model."""
    tokens = [torch.randint(base, (num,)), torch.randint(base, (num,))]
    while len(tokens) < length:
        tokens.append((tokens[-1] + tokens[-2]) % base)
    return torch.stack(tokens, 1)


def recall(num: int, length: int, *, num_symbols: int = 4) -> Rows:
    """Sequences (N, L, S + 1) that begin with a symbol, then noise; the symbol is the class."""
    y = torch.randint(num_symbols, (num,))
    x = 0.3 * torch.randn(num, length, num_symbols + 1)
    x[:, :, 0] = 0
    x[:, 0, :] = 0
    x[torch.arange(num), 0, 1 + y] = 1
    x[:, 0, 0] = 1
    return x, y


def waves(num: int = 800, length: int = 20) -> Halves:
    """Windows (N, L, 1) of a sum of two sines, and the value that follows, (N, 1)."""
    start = 200 * torch.rand(num, 1) + torch.arange(length + 1)
    series = (0.4 * start).sin() + 0.6 * (0.15 * start + 1).sin()
    return split(series[:, :-1, None], series[:, -1:], num // 5)


def bandit(num: int) -> Rows:
    """States (N, 6), and which of four actions is paid in each."""
    generator = torch.Generator().manual_seed(5)
    a, b = torch.randn(6, 12, generator=generator), torch.randn(12, 4, generator=generator)
    x = torch.randn(num, 6)
    return x, ((x @ a).tanh() @ b).argmax(1)


def fit(
    data: Halves,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction,
    goal: Goal,
    *,
    steps: int = 300,
    size: int = 64,
    **others: Any,
) -> Parts:
    """A training on batches of the rows, with a goal that is measured on those kept back."""
    return Parts(model, optimizer, loss, batches_of(*data[0], steps, size), goal, **others)


def stream(
    draw: Callable[[int], Batch],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: LossFunction,
    goal: Goal,
    *,
    steps: int = 300,
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


def tells(data: Halves, enough: float, middle: float = 0.0) -> Goal:
    """The share of zeros and ones of the rows kept back that an output above `middle` tells."""
    x, y = data[1]
    return mean_goal(lambda model: ((model(x) > middle).float() == y).float().mean(), enough)


def overlap(data: Halves, enough: float, middle: float = 0.0) -> Goal:
    """Intersection over union of the masks of the images kept back."""
    x, y = data[1]

    def value(model: nn.Module) -> Tensor:
        found = (model(x) > middle).float()
        return (found * y).sum() / (found + y).clamp_max(1).sum()

    return mean_goal(value, enough)


def next_token_goal(enough: float, *, base: int = 7) -> Goal:
    """The share of tokens that are predicted from those before, from the third on."""

    def value(model: nn.Module) -> Tensor:
        tokens = sums_modulo(256, base=base)
        said = model(tokens[:, :-1]).argmax(-1)
        return (said[:, 1:] == tokens[:, 2:]).float().mean()

    return mean_goal(value, enough)


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of (N, L - 1, K) logits with the tokens from the third on."""
    return nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), tokens[:, 2:].flatten())


def language(num: int) -> Batch:
    """Tokens to read, and the same with the one that follows."""
    tokens = sums_modulo(num)
    return tokens[:, :-1], tokens


def mlp(*sizes: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with an activation between each two."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), act()]
    return nn.Sequential(*layers[:-1])
