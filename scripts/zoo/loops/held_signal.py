"""Sick loops of the half that is only reported: initialisation and depth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.data_held import follow_patients, forecast, name_shapes
from zoo.loops.loop import HELD, Parts, loops_of
from zoo.loops.nets_held import Forecaster, conv_net, flat


def _drawn(model: nn.Module, draw: Any) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            draw(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def _he(weight: Tensor) -> Tensor:
    return nn.init.kaiming_normal_(weight, nonlinearity="relu").detach()


def _zeros(cured: bool) -> Parts:
    """All weights of a convolutional net begin at 0."""
    model = _drawn(conv_net(), _he if cured else nn.init.zeros_)
    return name_shapes(model, torch.optim.Adam(model.parameters(), lr=3e-3))


def _small(cured: bool) -> Parts:
    """Six linear layers and their read-out, drawn from N(0, 0.01)."""
    model = _drawn(flat(depth=6), _he if cured else lambda w: nn.init.normal_(w, 0, 0.01))
    return name_shapes(model, torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9), steps=400)


def _large(cured: bool) -> Parts:
    """Nine convolutions with tanh, drawn from N(0, 1)."""
    model = conv_net(act=nn.Tanh)
    for i in range(6):
        model.insert(6 + 2 * i, nn.Conv2d(32, 32, 3, padding=1))
        model.insert(7 + 2 * i, nn.Tanh())
    _drawn(model, nn.init.xavier_normal_ if cured else lambda w: nn.init.normal_(w, 0, 1.0))
    return name_shapes(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8), steps=200)


def _dead(cured: bool) -> Parts:
    """The biases of one convolution begin at -8."""
    model = conv_net()
    nn.init.constant_(model[2].bias, 0.0 if cured else -8.0)
    return name_shapes(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def _hard_sigmoids(cured: bool) -> Parts:
    """Fourteen layers of a hard sigmoid, with Xavier's init."""
    model = _drawn(flat(act=nn.ReLU if cured else nn.Hardsigmoid, depth=14),
                   _he if cured else nn.init.xavier_normal_)  # fmt: skip
    return name_shapes(model, torch.optim.Adam(model.parameters(), lr=1e-3), steps=300, enough=0.7)


class _Normed(nn.Module):
    """A convolution, batch normalisation and ReLU; with or without a skip."""

    def __init__(self, *, skips: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.skips = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), skips

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.conv(x)).relu()
        return x + 0.3 * h if self.skips else h


def _batchnorms(cured: bool) -> Parts:
    """Forty-eight convolutions with batch normalisation in a row."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), *(_Normed(skips=cured) for _ in range(48)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    return name_shapes(model, torch.optim.SGD(model.parameters(), lr=0.05), steps=90, enough=0.6)


class _Added(nn.Module):
    def __init__(self, *, is_scaled: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(32, 64), nn.Linear(64, 32)
        for layer in (self.one, self.two):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.scale = 0.15 if is_scaled else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.two(nn.functional.gelu(self.one(x)))


def _sums(cured: bool) -> Parts:
    """Thirty residual blocks of a regression, each added whole."""
    blocks = [_Added(is_scaled=cured) for _ in range(30)]
    model = nn.Sequential(nn.Linear(10, 32), *blocks, nn.Linear(32, 1))
    return follow_patients(model, torch.optim.SGD(model.parameters(), lr=2e-3), enough=0.25)


def _first_value(length: int, seed_size: int) -> tuple[Tensor, Tensor]:
    """Series of noise whose target is the first value."""
    x = torch.randn(seed_size, length, 1)
    return x, x[:, 0]


def _of_first_value(parts: Parts, length: int, steps: int) -> Parts:
    x_test, y_test = _first_value(length, 300)
    parts.batches = (_first_value(length, 64) for _ in range(steps))

    def score(model: nn.Module) -> float:
        return float(1 - (model(x_test) - y_test).square().mean() / y_test.var())

    parts.goal = type(parts.goal)(score, 0.5)
    return parts


def _forgetting(cured: bool) -> Parts:
    """A recurrence drawn small has to tell the first of 20 values."""
    model = Forecaster(nn.LSTM if cured else nn.RNN)
    if cured:
        nn.init.constant_(model.rnn.bias_hh_l0[24:48], 4.0)  # of the forget gate
    else:
        nn.init.normal_(model.rnn.weight_hh_l0, 0, 0.08)
    parts = forecast(model, torch.optim.Adam(model.parameters(), lr=0.01))
    return _of_first_value(parts, 20, 400)


def _exploding(cured: bool) -> Parts:
    """A recurrence of ReLU whose matrix is 1.5 times the identity, over 50 steps."""
    model = Forecaster(nn.RNN, nonlinearity="relu")
    nn.init.eye_(model.rnn.weight_hh_l0)
    model.rnn.weight_hh_l0.data.mul_(0.4 if cured else 1.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return forecast(model, optimizer, length=50, enough=0.6, steps=400)


LOOPS = loops_of(
    HELD,
    (
        ("held_zeros", "zero_weights", _zeros),
        ("held_small", "weights_small", _small),
        ("held_large", "weights_large", _large),
        ("held_dead", "dead_at_start", _dead),
        ("held_hard_sigmoids", "saturating_activation", _hard_sigmoids),
        ("held_batchnorms", "batchnorm_depth", _batchnorms),
        ("held_sums", "residual_growth", _sums),
        ("held_forgetting", "recurrence_vanishing", _forgetting),
        ("held_exploding", "recurrence_exploding", _exploding),
    ),
)
