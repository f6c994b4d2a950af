"""Sick loops of the set `faults`: softmaxes, shapes, last activations that do not fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, explained_goal
from zoo.loops.faults_data import (
    digits,
    explained,
    fit,
    mlp,
    moons,
    prices,
    right,
    small_cnn,
    stream,
    told,
    waves,
)
from zoo.loops.loop import FAULTS, Batch, Goal, Parts, loops_of


def _softmax_before_cross_entropy(cured: bool) -> Parts:
    """The model ends in `nn.Softmax`, and `nn.CrossEntropyLoss` has one of its own.

    Humbatova et al. 2020, Model, "redundant softmax layer"; NeuraLint and UMLAUT have it as the
    last activation that does not fit the loss.
    """
    data = digits(as_images=True)
    model = small_cnn()
    if not cured:
        model.append(nn.Softmax(dim=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=400)


class _LanguageModel(nn.Module):
    """Embedding, a GRU, and the next symbol at each place."""

    def __init__(self, symbols: int, *, ends_in_softmax: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 24)
        self.gru = nn.GRU(24, 32, batch_first=True)
        self.read = nn.Linear(32, symbols)
        self.ends_in_softmax = ends_in_softmax

    def forward(self, x: Tensor) -> Tensor:
        h = self.read(self.gru(self.embed(x))[0])
        return h.softmax(-1) if self.ends_in_softmax else h


def _log_softmax_of_softmax(cured: bool) -> Parts:
    """A language model says probabilities, and the loss takes `log_softmax` of them.

    Humbatova et al. 2020, Activation function, "wrong softmax implementation".
    """
    behind = torch.randperm(30)

    def draw(num: int) -> Batch:
        text = [torch.randint(30, (num,))]
        for _ in range(12):
            is_free = torch.rand(num) < 0.1
            text.append(torch.where(is_free, torch.randint(30, (num,)), behind[text[-1]]))
        symbols = torch.stack(text, 1)
        return symbols[:, :-1], symbols[:, 1:]

    model = _LanguageModel(30, ends_in_softmax=not cured)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7)

    def loss(output: Tensor, next_ones: Tensor) -> Tensor:
        return nn.functional.nll_loss(output.log_softmax(-1).flatten(0, 1), next_ones.flatten())

    goal = accuracy_goal(*draw(200), 0.8)
    return stream(draw, model, optimizer, loss, goal, steps=250)


def _sigmoid_before_logits(cured: bool) -> Parts:
    """The model ends in a sigmoid, and `BCEWithLogitsLoss` has one of its own.

    defects4ML and UMLAUT, the last activation does not fit the loss. Multi-label: which columns of
    a digit's pixels are bright; a label counts if it is said with more than one half.
    """
    (x, _), (x_test, _) = digits()

    def labelled(x: Tensor) -> Batch:
        return x, (x.reshape(-1, 8, 8).mean(1) > 0.55).float()

    data = labelled(x), labelled(x_test)
    model = mlp(64, 48, 8)
    if not cured:
        model.append(nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def score(model: nn.Module) -> float:
        x, y = data[1]
        said = model(x).sigmoid() > 0.5
        return float((said * y).sum() * 2 / (said.sum() + y.sum()))

    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, Goal(score, 0.8), steps=300)


def _column_against_row(cured: bool) -> Parts:
    """Outputs (N, 1) meet targets (N,) in `SmoothL1Loss`: all pairs are compared.

    Islam et al. 2019, "unaligned tensor"; Humbatova et al. 2020, Tensors, "wrong tensor shape".
    """
    data = prices()
    model = mlp(8, 48, 48, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    smooth = nn.SmoothL1Loss()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        output = model(batch[0])
        value = loss(output.squeeze(1) if cured else output, batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return fit(data, model, optimizer, smooth, explained(data, 0.6), steps=500, step=step)


class _MeanAndSpread(nn.Module):
    """A mean and the logarithm of a variance for each signal."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv1d(1, 12, 5, stride=2), nn.ReLU(), nn.Flatten())
        self.mean, self.log_var = nn.Linear(168, 1), nn.Linear(168, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.trunk(x)
        return torch.stack((self.mean(h), self.log_var(h)))


def _likelihood_of_all_pairs(cured: bool) -> Parts:
    """A Gaussian likelihood by hand: means (N, 1), targets (N,).

    Zhang et al. 2018 and Islam et al. 2019, "unaligned tensor". The amplitude of a wave in noise.
    """

    def draw(num: int) -> Batch:
        x, _ = waves(num)
        size = 0.3 + 2 * torch.rand(num)
        return x * size[:, None, None], 2 * (size - 1.3)

    model = _MeanAndSpread()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def likelihood(output: Tensor, y: Tensor) -> Tensor:
        mean, log_var = output
        if cured:
            y = y[:, None]
        return (log_var + (y - mean).square() / log_var.exp()).mean() / 2

    x, y = draw(300)

    def score(model: nn.Module) -> float:
        return float(1 - (model(x)[0][:, 0] - y).square().mean() / y.var())

    return stream(draw, model, optimizer, likelihood, Goal(score, 0.6), steps=300)


def _relu_at_the_end(cured: bool) -> Parts:
    """A regression ends in a ReLU, and all targets are below 0.

    Stack Overflow 59758722 (a regression whose final layer has a ReLU), a later subject; DeepCrime,
    "add activation function" (AAL). Losses in dB, from -9 to -1.
    """
    (x, y), (x_test, y_test) = prices()
    data = (x, y - 5), (x_test, y_test - 5)
    model = mlp(8, 48, 48, 1)
    if not cured:
        model.append(nn.ReLU())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output[:, 0], y)

    return fit(data, model, optimizer, loss, explained(data, 0.6), steps=500)


def _sigmoid_of_a_price(cured: bool) -> Parts:
    """A regression ends in a sigmoid, and prices are about 20.

    Stack Overflow 48221692, a subject of DeepLocalize (final layer, sigmoid); Humbatova et al.
    2020, "wrong type of activation function".
    """
    (x, y), (x_test, y_test) = prices()
    data = (x, 20 + 6 * y), (x_test, 20 + 6 * y_test)
    model = mlp(8, 48, 48, 1, act=nn.Tanh)
    if not cured:
        model.append(nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.l1_loss(output[:, 0], y)

    return fit(data, model, optimizer, loss, explained(data, 0.5), steps=600)


def _softmax_of_one(cured: bool) -> Parts:
    """A binary classifier ends in a softmax over its one output, which is always 1.

    Stack Overflow 31880720, a subject of DeepLocalize; NeuraLint's rule on the last layer.
    """
    data = moons()
    (x, y), (x_test, y_test) = data
    data = (x, y.float()), (x_test, y_test.float())
    model = mlp(2, 24, 24, 1)
    model.append(nn.Sigmoid() if cured else nn.Softmax(dim=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy(output[:, 0], y)

    return fit(data, model, optimizer, loss, told(data, 0.93, 0.5), steps=400)


class _StateIsTheAnswer(nn.Module):
    """The last state of an LSTM is the forecast; with a read-out it can be any number."""

    def __init__(self, *, has_read_out: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 16 if has_read_out else 1, batch_first=True)
        self.read = nn.Linear(16, 1) if has_read_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.lstm(x)[0][:, -1])[:, 0]


def _no_dense_layer_behind(cured: bool) -> Parts:
    """The forecast is the state of an LSTM, which is between -1 and 1; degrees go from -12 to 12.

    Humbatova et al. 2020, Layers, "missing dense layer".
    """

    def draw(num: int) -> Batch:
        start, slope = 6 * torch.randn(num, 1), torch.rand(num, 1) - 0.5
        days = start + slope * torch.arange(11) + 0.2 * torch.randn(num, 11)
        return days[:, :10, None] / 6, days[:, 10]

    model = _StateIsTheAnswer(has_read_out=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    goal = explained_goal(*draw(300), 0.7)
    return stream(draw, model, optimizer, nn.MSELoss(), goal, steps=400)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_softmax_before_cross_entropy", "double_softmax", _softmax_before_cross_entropy),
        ("faults_log_softmax_of_softmax", "double_softmax", _log_softmax_of_softmax),
        (
            "faults_sigmoid_before_logits",
            ("double_softmax", "output_range"),
            _sigmoid_before_logits,
        ),
        ("faults_column_against_row", "target_shape", _column_against_row),
        ("faults_likelihood_of_all_pairs", "target_shape", _likelihood_of_all_pairs),
        ("faults_relu_at_the_end", "output_range", _relu_at_the_end),
        ("faults_sigmoid_of_a_price", "output_range", _sigmoid_of_a_price),
        ("faults_softmax_of_one", ("output_range", "saturated_loss"), _softmax_of_one),
        ("faults_no_dense_layer_behind", "output_range", _no_dense_layer_behind),
    ],
)
