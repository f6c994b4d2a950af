"""Sick loops of the fresh set: initialisation and depth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.fresh_data import (
    classify,
    cross_entropy_of_tokens,
    customers,
    first_signs,
    keyword_text,
    pendulum,
    regress,
    reversals,
    share_of_signs,
    share_right,
    spots,
    stream,
    stripes,
)
from zoo.loops.fresh_nets import LastState, Reverser, Speller, mlp, stripes_net
from zoo.loops.loop import FRESH, Parts, loops_of


def _zero_lstm(cured: bool) -> Parts:
    """Every parameter of a language model of LSTM begins at 0."""
    model = Speller()
    if not cured:
        for each in model.parameters():
            nn.init.zeros_(each)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return stream(keyword_text, model, optimizer, cross_entropy_of_tokens, share_right, enough=0.5)


class _Adapted(nn.Module):
    """A frozen layer, and a product of two thin matrices beside it."""

    def __init__(self, inputs: int, outputs: int, *, both_zero: bool) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down = nn.Linear(inputs, 8, bias=False)
        self.up = nn.Linear(8, outputs, bias=False)
        nn.init.zeros_(self.up.weight)
        if both_zero:
            nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def _zero_adapters(cured: bool) -> Parts:
    """Both matrices of each adapter begin at 0, each multiplies the other's gradient."""
    both = not cured
    model = nn.Sequential(
        _Adapted(16, 48, both_zero=both), nn.ReLU(), _Adapted(48, 5, both_zero=both)
    )
    wanted = [each for each in model.parameters() if each.requires_grad]
    return classify(customers(), model, torch.optim.Adam(wanted, lr=0.01), enough=0.68, steps=300)


def _drawn(model: nn.Module, deviation: float) -> nn.Module:
    """Weights of linear and convolutional layers from N(0, deviation^2), biases at 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, 0, deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def _he(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model


def _tiny_convolutions(cured: bool) -> Parts:
    """`init.normal_(std=1e-4)` in four layers of images."""
    model = _he(stripes_net()) if cured else _drawn(stripes_net(), 1e-4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return classify(stripes(), model, optimizer, enough=0.8)


def _unit_normal(cured: bool) -> Parts:
    """`torch.randn` for the weights of seven layers of 128 with tanh."""
    model = mlp(16, *[128] * 7, 5, act=nn.Tanh)
    _drawn(model, 1.2 / 128**0.5 if cured else 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    return classify(customers(), model, optimizer, enough=0.65)


def _unit_normal_images(cured: bool) -> Parts:
    """The same for ReLU and images: outputs begin at 1e4."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        *mlp(288, 64, 64, 64, 4),
    )
    _he(model) if cured else _drawn(model, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    return classify(stripes(), model, optimizer, enough=0.8)


def _biases_of_minus_ten(cured: bool) -> Parts:
    """All biases of two ReLU layers begin at -10, for the sake of sparse codes."""
    model = mlp(3, 48, 48, 1)
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.bias, 0.0 if cured else -10.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return regress(pendulum(), model, optimizer, enough=0.7, steps=300)


def _sigmoid_autoencoder(cured: bool) -> Parts:
    """An autoencoder of ten layers, all with a sigmoid, as in 2006, by SGD."""
    images = spots().flatten(1)
    sizes = (100, 64, 48, 32, 24, 12, 24, 32, 48, 64, 100)
    model = mlp(*sizes, act=nn.Tanh if cured else nn.Sigmoid)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    return regress((images, images), model, optimizer, enough=0.2, steps=300)


class _Normed(nn.Module):
    """Linear, batch normalisation, ReLU; as a branch if `skips`."""

    def __init__(self, width: int, *, skips: bool) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.skips = skips

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.linear(x)).relu()
        return (x + 0.2 * h) if self.skips else h


def _rows_of_batchnorm(cured: bool) -> Parts:
    """Fifty fully connected layers with batch normalisation and ReLU in a row."""
    blocks = [_Normed(24, skips=cured) for _ in range(50)]
    model = nn.Sequential(nn.Linear(16, 24), *blocks, nn.Linear(24, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return classify(customers(), model, optimizer, enough=0.6, steps=100)


class _Block(nn.Module):
    """x + scale f(x), f of two layers with He's init."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.branch = _he(mlp(width, width, width))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.branch(x)


def _hundred_blocks(cured: bool) -> Parts:
    """A hundred residual blocks without normalisation, each added whole."""
    blocks = [_Block(16, 0.01 if cured else 1.0) for _ in range(100)]
    model = nn.Sequential(*blocks, nn.Linear(16, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return classify(customers(), model, optimizer, enough=0.6, steps=60)


class _Recurrence(nn.Module):
    """h = act(A h + B x) by hand; the outputs are all states."""

    def __init__(self, matrix: Tensor, act: Any) -> None:
        super().__init__()
        self.matrix = nn.Linear(len(matrix), len(matrix))
        self.entry = nn.Linear(1, len(matrix))
        self.act = act
        with torch.no_grad():
            self.matrix.weight.copy_(matrix)
            self.matrix.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        state, states = x.new_zeros(len(x), self.matrix.in_features), []
        for value in x.unbind(1):
            state = self.act(self.matrix(state) + self.entry(value))
            states.append(state)
        return torch.stack(states, 1), None


def _first_of_hundred(cured: bool) -> Parts:
    """A plain recurrence of 100 steps, asked for the first; the cure begins at the identity."""
    cell = nn.RNN(1, 24, batch_first=True, nonlinearity="tanh")
    if cured:
        nn.init.eye_(cell.weight_hh_l0)
        nn.init.normal_(cell.weight_ih_l0, 0, 0.05)
        nn.init.zeros_(cell.bias_hh_l0)
        nn.init.zeros_(cell.bias_ih_l0)
    model = LastState(cell, 24)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return stream(
        lambda steps: first_signs(steps, 100),
        model,
        optimizer,
        nn.BCEWithLogitsLoss(),
        share_of_signs,
        enough=0.85,
    )


def _growing_filter(cured: bool) -> Parts:
    """A linear filter, h = A h + B x, whose radius is 1.4, over 60 steps."""
    matrix = nn.init.orthogonal_(torch.empty(24, 24)) * (1.0 if cured else 1.4)
    model = LastState(_Recurrence(matrix, nn.Identity()), 24)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    return stream(
        lambda steps: first_signs(steps, 60),
        model,
        optimizer,
        nn.BCEWithLogitsLoss(),
        share_of_signs,
        enough=0.85,
        steps=120,
    )


def _no_warmup(cured: bool) -> Parts:
    """A transformer of ten post-norm layers by Adam at its full rate from the first update."""
    model = Reverser(depth=10, norm_first=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 100) if cured else 1.0
    )

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    return stream(
        lambda steps: reversals(steps, length=6, size=32),
        model,
        optimizer,
        cross_entropy_of_tokens,
        share_right,
        enough=0.7,
        step=step,
        steps=170,
    )


LOOPS = loops_of(
    FRESH,
    [
        ("fresh_zero_lstm", "zero_weights", _zero_lstm),
        ("fresh_zero_adapters", "zero_weights", _zero_adapters),
        ("fresh_tiny_convolutions", "weights_small", _tiny_convolutions),
        ("fresh_unit_normal", "weights_large", _unit_normal),
        ("fresh_unit_normal_images", "weights_large", _unit_normal_images),
        ("fresh_biases_of_minus_ten", "dead_at_start", _biases_of_minus_ten),
        ("fresh_sigmoid_autoencoder", "saturating_activation", _sigmoid_autoencoder),
        ("fresh_rows_of_batchnorm", "batchnorm_depth", _rows_of_batchnorm),
        ("fresh_hundred_blocks", "residual_growth", _hundred_blocks),
        ("fresh_first_of_hundred", "recurrence_vanishing", _first_of_hundred),
        ("fresh_growing_filter", "recurrence_exploding", _growing_filter),
        ("fresh_no_warmup", ("no_warmup", "rate_too_large"), _no_warmup),
    ],
)
