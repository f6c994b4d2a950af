"""Sick loops of the set `faults`: initialisation, depth, recurrence and units."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal
from zoo.loops.faults_data import (
    digits,
    explained,
    first_of,
    fit,
    mlp,
    moons,
    prices,
    right,
    small_cnn,
    stream,
    waves,
)
from zoo.loops.loop import FAULTS, Batch, Parts, loops_of


def _initialiser_of_zeros(cured: bool) -> Parts:
    """All kernels and biases of a network of convolutions are set to 0.

    DeepCrime, "change weights initialisation" (WCI, zeros); NeuraLint, "initial weights should not
    be 0".
    """
    data = digits(as_images=True)
    model = small_cnn()
    if not cured:
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=250)


def _weights_of(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.dim() > 1]


def _initialiser_of_a_constant(cured: bool) -> Parts:
    """All weights of a layer are the same number: its units are one unit.

    DeepCrime, "change weights initialisation" (WCI, constant); NeuraLint has the rule beside zeros.
    """
    data = digits()
    model = mlp(64, 32, 32, 10, act=nn.Tanh)
    if not cured:
        for weight in _weights_of(model):
            nn.init.constant_(weight, 0.02)
        for bias in (p for p in model.parameters() if p.dim() == 1):
            nn.init.zeros_(bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=300)


def _normal_of_a_hundredth(cured: bool) -> Parts:
    """Every weight of eight layers is drawn with a standard deviation of 0.01.

    Humbatova et al. 2020, Model, "wrong weight initialization"; DeepCrime, WCI (random normal).
    """
    data = digits()
    model = mlp(64, *[40] * 7, 10)
    for weight in _weights_of(model):
        if cured:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        else:
            nn.init.normal_(weight, std=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=400)


class _HandMlp(nn.Module):
    """Matrices by hand, `torch.randn(inputs, outputs)` times a scale."""

    def __init__(self, *widths: int, is_scaled: bool) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            torch.randn(fan_in, fan_out) * (fan_in**-0.5 if is_scaled else 1.0)
            for fan_in, fan_out in pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths[1:])

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            x = x.tanh() if k < last else x
        return x


def _plain_randn(cured: bool) -> Parts:
    """`nn.Parameter(torch.randn(inputs, outputs))` in a perceptron by hand.

    Humbatova et al. 2020, Model, "wrong weight initialization"; DeepCrime, WCI (random normal of
    deviation 1).
    """
    data = digits()
    model = _HandMlp(64, *[64] * 5, 10, is_scaled=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=300)


def _bias_below_all(cured: bool) -> Parts:
    """Biases before ReLU begin at -10: no unit is ever above 0.

    DeepCrime, WAB and the bias initialisers; AUTOTRAINER, "dying ReLU".
    """
    data = moons()
    model = mlp(2, 32, 32, 2)
    if not cured:
        for layer in model[:-1]:
            if isinstance(layer, nn.Linear):
                nn.init.constant_(layer.bias, -10.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.93), steps=400)


def _deep_sigmoid(cured: bool) -> Parts:
    """Eight hidden layers of sigmoid units.

    AUTOTRAINER, "gradient vanish"; DeepCrime, "change activation function" (ACH).
    """
    data = digits()
    model = mlp(64, *[40] * 8, 10, act=nn.ReLU if cured else nn.Sigmoid)
    for weight in _weights_of(model):
        nn.init.kaiming_normal_(weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=300)


class _Lstm(nn.Module):
    """An LSTM, and a read-out of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 32, batch_first=True)
        self.read = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.lstm(x)[0][:, -1])


def _long_memory(cured: bool) -> Parts:
    """An LSTM has to recall the first of 40 symbols, and its forget gates begin half open.

    AUTOTRAINER, "gradient vanish", its recurrent subjects; DeepCrime, bias initialisers (Keras
    starts that bias at 1). In the twin the forget gates begin open.
    """
    model = _Lstm()
    if cured:
        with torch.no_grad():
            model.lstm.get_parameter("bias_hh_l0")[32:64] += 3
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def draw(num: int) -> Batch:
        return first_of(num, 40)

    goal = accuracy_goal(*draw(400), 0.85)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, steps=400)


class _HandCell(nn.Module):
    """`h = relu(W x + U h)`, one matrix each, read out at the end."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.take, self.keep = nn.Linear(1, 32), nn.Linear(32, 32, bias=False)
        nn.init.orthogonal_(self.keep.weight, gain)
        self.read = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 32)
        for part in x[:, 0].unbind(1):
            h = (self.take(part[:, None]) + self.keep(h)).relu()
        return self.read(h)


def _growing_state(cured: bool) -> Parts:
    """A recurrent net by hand multiplies its state by a matrix of gain 2 at each of 32 steps.

    AUTOTRAINER, "gradient explode"; Humbatova et al. 2020, "wrong weight initialization".
    """
    model = _HandCell(1.0 if cured else 2.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    goal = accuracy_goal(*waves(300), 0.75)
    return stream(waves, model, optimizer, nn.CrossEntropyLoss(), goal, steps=500)


class _Block(nn.Module):
    """`x + f(x)`, without a norm."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(32, 64), nn.Linear(64, 32)
        nn.init.kaiming_normal_(self.inner.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.outer.weight)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.outer(self.inner(x).relu())


def _blocks_that_double(cured: bool) -> Parts:
    """24 residual blocks without a norm: each doubles the stream's variance, or more.

    AUTOTRAINER, "gradient explode"; Humbatova et al. 2020, "suboptimal network structure".
    """
    (x, y), (x_test, y_test) = prices()
    data = (x, y), (x_test, y_test)
    blocks = [_Block(24**-0.5 if cured else 1.0) for _ in range(24)]
    model = nn.Sequential(nn.Linear(8, 32), *blocks, nn.Linear(32, 1), nn.Flatten(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=3e-3, momentum=0.9)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.6), steps=300)


class _NormedStack(nn.Module):
    """Layers of a linear map, batch normalisation and ReLU; `skips` adds each input."""

    def __init__(self, depth: int, *, skips: bool) -> None:
        super().__init__()
        self.take = nn.Linear(64, 32)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU())
            for _ in range(depth)
        )
        self.read = nn.Linear(32, 10)
        self.skips = skips

    def forward(self, x: Tensor) -> Tensor:
        x = self.take(x)
        for layer in self.layers:
            x = x + 0.2 * layer(x) if self.skips else layer(x)
        return self.read(x)


def _forty_normed_layers(cured: bool) -> Parts:
    """Forty layers with batch normalisation and no shortcut.

    Humbatova et al. 2020, "suboptimal network structure"; AUTOTRAINER, "gradient explode", adds
    such norms as its repair, which in so deep a net is the fault.
    """
    data = digits()
    model = _NormedStack(40, skips=cured)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=150)


def _all_positive_weights(cured: bool) -> Parts:
    """Weights are `torch.rand`, between 0 and 1: sigmoid units get about 15 from bright pixels.

    DeepCrime, WCI (random uniform); DeepDiagnosis, "saturated activation".
    """
    data = digits()
    model = mlp(64, 64, 64, 10, act=nn.Sigmoid)
    if not cured:
        for weight in _weights_of(model):
            nn.init.uniform_(weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=400)


def _penalty_on_activity(cured: bool) -> Parts:
    """An L1 penalty on hidden activations is a thousand times too strong: ReLU units die.

    DeepCrime, "add weights regularisation" (RAW) of the kind `activity_regularizer`; AUTOTRAINER,
    "dying ReLU".
    """
    data = digits()
    model = mlp(64, 48, 48, 10)
    strength = 1e-4 if cured else 0.3
    hidden: list[Tensor] = []

    def keep(_module: Any, _given: Any, output: Tensor) -> None:
        hidden.append(output)

    for layer in model:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(keep)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, y)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        hidden.clear()
        value = loss(model(batch[0]), batch[1])
        value = value + strength * sum(each.sum(1).mean() for each in hidden)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return fit(data, model, optimizer, loss, right(data, 0.85), steps=300, step=step)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_initialiser_of_zeros", "zero_weights", _initialiser_of_zeros),
        (
            "faults_initialiser_of_a_constant",
            ("zero_weights", "unknown"),
            _initialiser_of_a_constant,
        ),
        ("faults_normal_of_a_hundredth", "weights_small", _normal_of_a_hundredth),
        ("faults_plain_randn", "weights_large", _plain_randn),
        ("faults_bias_below_all", "dead_at_start", _bias_below_all),
        ("faults_deep_sigmoid", "saturating_activation", _deep_sigmoid),
        ("faults_long_memory", "recurrence_vanishing", _long_memory),
        ("faults_growing_state", ("recurrence_exploding", "weights_large"), _growing_state),
        ("faults_blocks_that_double", "residual_growth", _blocks_that_double),
        ("faults_forty_normed_layers", "batchnorm_depth", _forty_normed_layers),
        (
            "faults_all_positive_weights",
            ("saturated_units", "weights_large"),
            _all_positive_weights,
        ),
        ("faults_penalty_on_activity", "dead_units", _penalty_on_activity),
    ],
)
