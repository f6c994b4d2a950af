"""Networks of the half that is only reported."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.loops.data_held import NUM_TOKENS, SIDE


def conv_net(*, act: Callable[[], nn.Module] = nn.ReLU, last: int = 4) -> nn.Sequential:
    """Three convolutions and a mean over places."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), act(), nn.Conv2d(16, 24, 3, stride=2, padding=1), act(),
        nn.Conv2d(24, 32, 3, padding=1), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, last),
    )  # fmt: skip


class Forecaster(nn.Module):
    """A recurrence and a linear read-out of its last state."""

    def __init__(
        self, cell: type[nn.RNNBase] = nn.LSTM, width: int = 24, **options: object
    ) -> None:
        super().__init__()
        self.rnn = cell(1, width, batch_first=True, **options)
        self.readout = nn.Linear(width, 1)

    def forward(self, x_NT1: Tensor) -> Tensor:
        return self.readout(self.rnn(x_NT1)[0][:, -1])


class Marker(nn.Module):
    """A small U-Net: two scales, and a skip between them; returns logits `z_N1HW`."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2),
        )  # fmt: skip
        self.up = nn.Sequential(
            nn.Conv2d(3 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(x)
        return self.up(torch.cat((h, self.deep(h)), 1))


class Attention(nn.Module):
    """One causal head, by matrices of its own."""

    def __init__(self, width: int, size: int, *, is_scaled: bool = True) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, size) for _ in range(3))
        self.scale = size**-0.5 if is_scaled else 1.0

    def forward(self, x_NTW: Tensor) -> Tensor:
        q, k, v = self.query(x_NTW), self.key(x_NTW), self.value(x_NTW)
        scores = q @ k.transpose(1, 2) * self.scale
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


class Counter(nn.Module):
    """A transformer that reads and writes tokens; returns logits `z_NKT`."""

    def __init__(
        self, depth: int = 2, width: int = 32, *, is_pre: bool = True, is_tied: bool = False
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_TOKENS, width)
        self.places = nn.Parameter(0.02 * torch.randn(10, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.0, batch_first=True, norm_first=is_pre
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.readout = nn.Linear(width, NUM_TOKENS, bias=False)
        if is_tied:
            nn.init.normal_(self.embed.weight, 0, width**-0.5)
            self.readout.weight = self.embed.weight

    def forward(self, tokens_NT: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens_NT.shape[1])
        h = self.embed(tokens_NT) + self.places[: tokens_NT.shape[1]]
        return self.readout(self.blocks(h, mask=mask, is_causal=True)).transpose(1, 2)


def flat(*, act: Callable[[], nn.Module] = nn.ReLU, depth: int = 2) -> nn.Sequential:
    """A chain of linear layers over the pixels of a shape."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(SIDE * SIDE if i == 0 else 40, 40), act()]
    return nn.Sequential(*layers, nn.Linear(40, 4))
