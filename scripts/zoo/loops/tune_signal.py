"""Sick loops of the half by which rules may be set: initialisation and depth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.loops.data_tune import fit_waves, read_digits, recall_first, tell_tumours
from zoo.loops.loop import TUNE, Parts, loops_of


def _deep(
    inputs: int,
    outputs: int,
    depth: int,
    act: Callable[[], nn.Module],
    init: Callable[[Tensor], object] | None,
    norm: Callable[[int], nn.Module] | None = None,
    width: int = 32,
) -> nn.Sequential:
    """A plain chain of `depth` layers and a read-out."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layer = nn.Linear(inputs if i == 0 else width, width)
        if init is not None:
            init(layer.weight)
            nn.init.zeros_(layer.bias)
        layers += [layer, *([norm(width)] if norm else []), act()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _he(weight: Tensor) -> Tensor:
    return nn.init.kaiming_normal_(weight, nonlinearity="relu").detach()


def _zeros(cured: bool) -> Parts:
    """All weights of a tanh net begin at 0, as if symmetry broke by itself."""
    model = _deep(64, 10, 3, nn.Tanh, nn.init.xavier_normal_ if cured else nn.init.zeros_)
    if not cured:
        nn.init.zeros_(model[-1].weight)
    return read_digits(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def _small(cured: bool) -> Parts:
    """Nine layers drawn from N(0, 0.02), as language models do in layers that are normalised."""
    model = _deep(64, 10, 9, nn.ReLU, _he if cured else lambda w: nn.init.normal_(w, 0, 0.02))
    return read_digits(model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))


def _large(cured: bool) -> Parts:
    """Eight tanh layers drawn from N(0, 1): every unit is at a flat end."""
    init = nn.init.xavier_normal_ if cured else nn.init.normal_
    model = _deep(64, 10, 8, nn.Tanh, init, width=64)
    return read_digits(model, torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9), steps=400)


def _large_relu(cured: bool) -> Parts:
    """Ten ReLU layers, each of which multiplies by 4."""
    gain = 1.0 if cured else 4.0
    model = _deep(3, 1, 10, nn.ReLU, lambda w: _he(w).mul_(gain))
    return fit_waves(model, torch.optim.Adam(model.parameters(), lr=2e-3))


def _dead(cured: bool) -> Parts:
    """Biases of -6, taken from a detector's prior, in front of ReLU."""
    model = _deep(30, 1, 2, nn.ReLU, _he)
    if not cured:
        nn.init.constant_(model[2].bias, -30.0)
    return tell_tumours(model, torch.optim.Adam(model.parameters(), lr=3e-3))


def _sigmoids(cured: bool) -> Parts:
    """Ten sigmoid layers with PyTorch's own init."""
    init = nn.init.xavier_normal_ if cured else None
    model = _deep(64, 10, 10, nn.Tanh if cured else nn.Sigmoid, init)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    return read_digits(model, optimizer, steps=400)


def _batchnorms(cured: bool) -> Parts:
    """Sixty layers of batch normalisation and ReLU without a skip, trained by SGD."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(32, 32), nn.BatchNorm1d(32)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(self.linear(x)).relu()
            return x + 0.2 * h if cured else h

    blocks = [Block() for _ in range(60)]
    model = nn.Sequential(nn.Linear(64, 32), *blocks, nn.Linear(32, 10))
    return read_digits(model, torch.optim.SGD(model.parameters(), lr=0.05), steps=250)


class _Residual(nn.Module):
    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        for layer in (self.branch[0], self.branch[2]):
            nn.init.kaiming_normal_(layer.weight)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(x)


def _residuals(cured: bool) -> Parts:
    """Twenty-four residual blocks without a norm: the stream doubles its variance in each."""
    scale = 24**-0.5 if cured else 1.0
    blocks = [_Residual(32, scale) for _ in range(24)]
    model = nn.Sequential(nn.Linear(64, 32), *blocks, nn.Linear(32, 10))
    return read_digits(model, torch.optim.SGD(model.parameters(), lr=0.02), steps=300)


class _Recalling(nn.Module):
    def __init__(self, cell: type[nn.Module]) -> None:
        super().__init__()
        self.rnn = cell(4, 32, batch_first=True)
        self.readout = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.rnn(x)[0][:, -1])


def _forgetting(cured: bool) -> Parts:
    """A plain tanh recurrence has to keep a symbol for 30 steps."""
    model = _Recalling(nn.LSTM if cured else nn.RNN)
    if cured:
        nn.init.constant_(model.rnn.bias_hh_l0[32:64], 4.0)  # of the forget gate
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01 if cured else 2e-3)
    return recall_first(model, optimizer, length=30, steps=350)


LOOPS = loops_of(
    TUNE,
    (
        ("init_zeros", "zero_weights", _zeros),
        ("init_small", "weights_small", _small),
        ("init_large", "weights_large", _large),
        ("init_large_relu", "weights_large", _large_relu),
        ("init_dead", "dead_at_start", _dead),
        ("depth_sigmoids", "saturating_activation", _sigmoids),
        ("depth_batchnorms", "batchnorm_depth", _batchnorms),
        ("depth_residuals", "residual_growth", _residuals),
        ("depth_forgetting", "recurrence_vanishing", _forgetting),
    ),
)
