"""Networks of the fresh loops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.fresh_data import LETTERS


def mlp(*sizes: int, act: Any = nn.ReLU) -> nn.Sequential:
    """Linear layers with an activation between them, none at the end."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), act()]
    return nn.Sequential(*layers[:-1])


def stripes_net(kinds: int = 4, act: Any = nn.ReLU) -> nn.Sequential:
    """Three convolutions, a global mean, and a read-out."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        act(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        act(),
        nn.Conv2d(16, 16, 3, padding=1),
        act(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, kinds),
    )


class Speller(nn.Module):
    """A language model of characters: `NT` to `NTK`."""

    def __init__(self, cell: Any = nn.LSTM, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), 16)
        self.cell = cell(16, width, batch_first=True)
        self.readout: nn.Module = nn.Linear(width, len(LETTERS))

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.cell(self.embedding(x))[0])


class Reverser(nn.Module):
    """A transformer that tells each token of the answer: `NT` to `NTK`."""

    def __init__(
        self, kinds: int = 12, depth: int = 2, width: int = 32, *, norm_first: bool = True
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(kinds, width)
        self.place = nn.Parameter(0.5 * torch.randn(16, width))
        layers = [
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=norm_first
            )
            for _ in range(depth)
        ]
        self.layers = nn.Sequential(*layers)
        self.readout = nn.Linear(width, kinds)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.layers(self.embedding(x) + self.place[: x.shape[1]]))


class Factors(nn.Module):
    """A user's factors times an item's, and a bias each: pairs `N2` to `N`."""

    def __init__(self, users: int = 60, items: int = 40, size: int = 8, **options: Any) -> None:
        super().__init__()
        self.users = nn.Embedding(users, size, **options)
        self.items = nn.Embedding(items, size, **options)
        self.bias = nn.Embedding(items, 1, **options)

    def forward(self, x: Tensor) -> Tensor:
        user, item = x.unbind(1)
        return (self.users(user) * self.items(item)).sum(1) / 3 + self.bias(item)[:, 0]


class LastState(nn.Module):
    """Reads the last state of a recurrence: `NT1` to `N`."""

    def __init__(self, cell: nn.Module, width: int) -> None:
        super().__init__()
        self.cell = cell
        self.readout = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.cell(x)[0][:, -1])[:, 0]
