"""Healthy loops of the set `faults`: each looks like an entry of a catalogue, and learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal, split
from zoo.loops.faults_data import (
    digits,
    explained,
    fit,
    mlp,
    prices,
    right,
    small_cnn,
    stream,
    told,
    tumours,
)
from zoo.loops.loop import FAULTS, HEALTHY, Batch, Parts, loops_of


def _of_column(output: Tensor, y: Tensor) -> Tensor:
    return nn.functional.mse_loss(output[:, 0], y)


def _columns_with_a_norm_first(_cured: bool) -> Parts:
    """Columns from 0.001 to 4,000 as they are, and the first layer is batch normalisation.

    Looks like UMLAUT's "input data exceeds limits".
    """
    x, y = tumours()
    data = split(x, y, 140)
    model = nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(output[:, 0], y)

    return fit(data, model, optimizer, loss, told(data, 0.92), steps=250)


def _labels_wrong_in_part(_cured: bool) -> Parts:
    """Four in ten labels are drawn anew; the loss stays high, and the digits are learnt.

    Looks like DeepCrime's "change labels" (TCL).
    """
    (x, y), test = digits(as_images=True)
    y = torch.where(torch.rand(len(y)) < 0.4, torch.randint(10, y.shape), y)
    data = (x, y), test
    model = small_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=250)


class _NextSymbol(nn.Module):
    """Embedding, an LSTM, and the logits of the next symbol."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.read = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.lstm(self.embed(x))[0])


def _noisy_source(_cured: bool) -> Parts:
    """A language model of a source that names the next symbol only half of the time.

    The loss stays near the source's entropy. Looks like AUTOTRAINER's "slow convergence".
    """
    behind = torch.randperm(16)

    def draw(num: int) -> Batch:
        text = [torch.randint(16, (num,))]
        for _ in range(14):
            is_free = torch.rand(num) < 0.5
            text.append(torch.where(is_free, torch.randint(16, (num,)), behind[text[-1]]))
        symbols = torch.stack(text, 1)
        return symbols[:, :-1], symbols[:, 1:]

    model = _NextSymbol()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss(output: Tensor, following: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.mT, following)

    goal = accuracy_goal(*draw(300), 0.48)
    return stream(draw, model, optimizer, loss, goal, steps=250, size=32)


def _rate_in_cycles(_cured: bool) -> Parts:
    """A cyclic rate goes up to where the loss jumps, and comes down again each time.

    Looks like AUTOTRAINER's "oscillating loss".
    """
    data = prices()
    model = mlp(8, 48, 48, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CyclicLR(optimizer, 0.002, 0.12, step_size_up=50)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()
        schedule.step()

    return fit(data, model, optimizer, _of_column, explained(data, 0.7), steps=600, step=step)


def _random_features(_cured: bool) -> Parts:
    """A body of random convolutions is frozen on purpose, and a ridge of logits is trained.

    Looks like parameters that nobody gave to the optimizer.
    """
    data = digits(as_images=True)
    body = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    model = nn.Sequential(body.requires_grad_(False), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model[1].parameters(), lr=0.01, weight_decay=1e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.9), steps=250)


class _SimSiam(nn.Module):
    """An encoder, and a predictor of the other view's code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.encoder.append(nn.Linear(64, 24))
        self.predictor = nn.Sequential(nn.Linear(24, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.predictor.append(nn.Linear(16, 24))

    def forward(self, x: Tensor) -> Tensor:
        return self.predictor(self.encoder(x))


def _codes_detached(_cured: bool) -> Parts:
    """SimSiam: the code of the other view is detached, as the method wants it.

    Looks like a graph that was cut. The loss ends near -1.
    """
    (x, _), (x_test, _) = digits()

    def views(x: Tensor) -> Batch:
        first, second = (x * (torch.rand_like(x) > 0.15) for _ in range(2))
        return first, second

    def draw(num: int) -> Batch:
        return views(x[torch.randint(len(x), (num,))])

    model = _SimSiam()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def likeness(output: Tensor, code: Tensor) -> Tensor:
        return -nn.functional.cosine_similarity(output, code.detach()).mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        first, second = batch
        code_1, code_2 = model.encoder(first), model.encoder(second)
        value = loss(model.predictor(code_1), code_2) + loss(model.predictor(code_2), code_1)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    first, second = views(x_test[:100])

    def found(model: Any) -> Tensor:
        said = nn.functional.normalize(model(first))
        meant = nn.functional.normalize(model.encoder(second))
        return ((said @ meant.T).argmax(1) == torch.arange(100)).float().mean()

    goal = mean_goal(found, 0.35)
    return stream(draw, model, optimizer, likeness, goal, steps=300, size=96, step=step)


class _Gate(nn.Module):
    """`x + g * f(x)`, where g begins at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.outer(self.inner(x).relu())


def _gates_of_zero(_cured: bool) -> Parts:
    """Eight residual branches begin behind a gate of 0 (ReZero).

    Looks like NeuraLint's "initial weights should not be 0".
    """
    data = prices()
    model = nn.Sequential(nn.Linear(8, 40), *[_Gate(40) for _ in range(8)], nn.Linear(40, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, _of_column, explained(data, 0.7), steps=500)


def _loss_in_millionths(_cured: bool) -> Parts:
    """Millimetres are told in metres: losses are 1e-6, gradients as small, and Adam divides.

    Looks like AUTOTRAINER's "gradient vanish".
    """
    (x, y), (x_test, y_test) = prices()
    data = (x, 1e-3 * y), (x_test, 1e-3 * y_test)
    model = mlp(8, 48, 48, 1)
    with torch.no_grad():
        model[-1].weight.mul_(1e-3)
        model[-1].bias.zero_()
    groups = [{"params": model[:-1].parameters()}, {"params": model[-1].parameters(), "lr": 1e-5}]
    optimizer = torch.optim.Adam(groups, lr=3e-3, eps=1e-15)
    return fit(data, model, optimizer, _of_column, explained(data, 0.6), steps=600)


def _thousands_of_euros(_cured: bool) -> Parts:
    """Prices are about 300,000 as they are; the read-out begins at their mean and is scaled by it.

    Losses are about 1e10 and gradients as large, and Adam divides. Looks like "gradient explode".
    """
    (x, y), (x_test, y_test) = prices()
    data = (x, 3e5 + 8e4 * y), (x_test, 3e5 + 8e4 * y_test)

    class InEuros(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 3e5 + 1e5 * x

    model = mlp(8, 48, 48, 1).append(InEuros())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return fit(data, model, optimizer, _of_column, explained(data, 0.7), steps=500)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_fine_norm_first", HEALTHY, _columns_with_a_norm_first),
        ("faults_fine_labels_wrong_in_part", HEALTHY, _labels_wrong_in_part),
        ("faults_fine_noisy_source", HEALTHY, _noisy_source),
        ("faults_fine_rate_in_cycles", HEALTHY, _rate_in_cycles),
        ("faults_fine_random_features", HEALTHY, _random_features),
        ("faults_fine_codes_detached", HEALTHY, _codes_detached),
        ("faults_fine_gates_of_zero", HEALTHY, _gates_of_zero),
        ("faults_fine_loss_in_millionths", HEALTHY, _loss_in_millionths),
        ("faults_fine_thousands_of_euros", HEALTHY, _thousands_of_euros),
    ],
)
