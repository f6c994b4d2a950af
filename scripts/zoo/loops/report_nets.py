"""Nets of the set `reports` that several of its loops use, and the batches that are theirs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.loops.batches import explained_goal
from zoo.loops.loop import Batch, Goal
from zoo.loops.report_data import digits


class Denoiser(nn.Module):
    """Says the noise of a noised digit, (N, 65) with how much there is, as diffusion models do."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(8, 32)
        self.first, self.second, self.last = (
            nn.Linear(64, 96),
            nn.Linear(128, 96),
            nn.Linear(96, 64),
        )

    def forward(self, x: Tensor) -> Tensor:
        waves = x[:, 64:] * torch.arange(1, 5)
        time = self.time(torch.cat((waves.sin(), waves.cos()), 1))
        h = nn.functional.silu(self.first(x[:, :64]))
        h = nn.functional.silu(self.second(torch.cat((h, time), 1)))
        return self.last(h)


def noised(num: int) -> Batch:
    """Digits with noise and how much of it, (N, 65), and the noise, (N, 64)."""
    (x, _), _ = digits(scale=1 / 8)
    x = x[torch.randint(len(x), (num,))] - 1
    share = 0.1 + 0.8 * torch.rand(num, 1)
    noise = torch.randn(num, 64)
    return torch.cat((share.sqrt() * x + (1 - share).sqrt() * noise, share), 1), noise


def denoising_goal(enough: float) -> Goal:
    """R squared of the noise that is said."""
    return explained_goal(*noised(400), enough)


class HandRnn(nn.Module):
    """The recurrent net of the tutorial on names: two linear layers of input and state."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.i2h, self.i2o = nn.Linear(inputs + hidden, hidden), nn.Linear(inputs + hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.hidden)
        output = state
        for letter in x.unbind(1):
            both = torch.cat((letter, state), 1)
            state, output = self.i2h(both).tanh(), self.i2o(both)
        return output.log_softmax(1)


def _of_generator(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def names(num: int, length: int = 7) -> Batch:
    """Words of twelve letters, one-hot (N, L, 12), in five languages, which are the classes."""
    chances = (2.5 * _of_generator(5, 12, 12, seed=3)).softmax(-1)
    y = torch.randint(5, (num,))
    letters = [torch.randint(12, (num,))]
    while len(letters) < length:
        letters.append(torch.multinomial(chances[y, letters[-1]], 1)[:, 0])
    return nn.functional.one_hot(torch.stack(letters, 1), 12).float(), y


def text(num: int, length: int = 12) -> Batch:
    """Word vectors (N, L, 16) of twenty words; whether word 3 stands right before word 7."""
    vectors = _of_generator(20, 16, seed=4)
    words = torch.randint(8, 20, (num, length))
    y = torch.randint(2, (num,))
    place = torch.randint(length - 3, (num,))
    rows = torch.arange(num)
    words[rows, place] = 3
    words[rows, place + 1 + (1 - y)] = 7
    return vectors[words], y


def speech(num: int, length: int = 16) -> Batch:
    """Noise (N, L, 8) in which one of five patterns of six frames is said, the class."""
    patterns = 1.5 * _of_generator(5, 6, 8, seed=6)
    y = torch.randint(5, (num,))
    x = torch.randn(num, length, 8)
    place = torch.randint(length - 6, (num,))
    frames = place[:, None] + torch.arange(6)
    x[torch.arange(num)[:, None], frames] += patterns[y]
    return x, y


class Places(nn.Module):
    """Adds sines and cosines of the place, as transformers do."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        speed = torch.exp(torch.arange(0, width, 2) * (-math.log(100.0) / width))
        angle = torch.arange(length)[:, None] * speed
        self.register_buffer("table", torch.stack((angle.sin(), angle.cos()), 2).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]


class Gpt(nn.Module):
    """A small causal transformer; `norm_first=False` is the post-norm one."""

    def __init__(
        self, base: int = 7, width: int = 32, depth: int = 2, *, norm_first: bool = True
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(base, width)
        self.places = Places(width, 16)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, 0.0, batch_first=True, norm_first=norm_first
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.lm_head = nn.Linear(width, base, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        h = self.places(self.wte(tokens))
        for layer in self.layers:
            h = layer(h, src_mask=mask, is_causal=True)
        return self.lm_head(self.norm(h))


class GruModel(nn.Module):
    """A language model of one recurrent layer."""

    def __init__(self, base: int = 7, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(base, 16)
        self.gru = nn.GRU(16, width, batch_first=True)
        self.readout = nn.Linear(width, base)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.readout(self.gru(self.embedding(tokens))[0])


def conv_net(*, width: int = 8, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Three convolutions and a read-out, for digits as images."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        act(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        act(),
        nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
        act(),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    )
