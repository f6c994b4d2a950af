"""Sick loops of the set `reports`: the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal, standardised
from zoo.loops.loop import REPORTS, Batch, Parts, loops_of
from zoo.loops.report_data import (
    bank,
    blobs,
    digits,
    explained,
    fit,
    mlp,
    overlap,
    right,
    stream,
    tells,
    waves,
)


def _worlds(num: int) -> Batch:
    """Screens (N, 2, 6, 6) with an agent and a goal, 255 where they are; the action to take."""
    here, there = torch.randint(6, (num, 2)), torch.randint(6, (num, 2))
    apart = there - here
    is_down = apart[:, 0].abs() >= apart[:, 1].abs()
    y = torch.where(is_down, (apart[:, 0] > 0).long(), 2 + (apart[:, 1] > 0).long())
    x = torch.zeros(num, 2, 6, 6)
    rows = torch.arange(num)
    x[rows, 0, here[:, 0], here[:, 1]] = 255
    x[rows, 1, there[:, 0], there[:, 1]] = 255
    return x, y


def _screens_of_bytes(cured: bool) -> Parts:
    """Screens of 0 to 255 reach the policy net as they are when it learns from an expert.

    GitHub hill-a/stable-baselines, issue #328: "The first bug is in `dataset.py`. I realised that
    the images get at no point normalized". A policy that copies an expert.
    """
    model = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Flatten())
    model.extend([nn.Linear(16 * 36, 64), nn.ReLU(), nn.Linear(64, 4)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    factor = 1 / 255 if cured else 1.0

    def draw(num: int) -> Batch:
        x, y = _worlds(num)
        return x * factor, y

    goal = accuracy_goal(*draw(400), 0.75)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, steps=350)


def _bank_in_its_own_units(cured: bool) -> Parts:
    """Ages stand beside incomes, each in its own unit, before hidden units of sigmoid.

    Stack Overflow 39525358, as the benchmark of DeepFD records it: `StandardScaler` was missing.
    """
    data = bank(is_scaled=cured)
    model = mlp(6, 32, 32, 1, act=nn.Sigmoid)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, tells(data, 0.85), steps=500)


def _curve_in_its_own_units(cured: bool) -> Parts:
    """Both x, from 0 to 1000, and y, up to a million, go unscaled into a regression by SGD.

    Stack Overflow 47932589, as the benchmark of DeepFD records it: both were brought to 0 to 1.
    """
    x = 1000 * torch.rand(1200, 1)
    y = x.square() + 200 * x
    if cured:
        x, y = (x - x.min()) / (x.max() - x.min()), (y - y.min()) / (y.max() - y.min())
    data = ((x[:-240], y[:-240]), (x[-240:], y[-240:]))
    model = mlp(1, 32, 32, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.9), steps=400)


class _GraphNet(nn.Module):
    """Two layers that average over neighbours."""

    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency / adjacency.sum(1, keepdim=True))
        self.first, self.second = nn.Linear(40, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.elu(self.first(self.adjacency @ x))
        return self.second(self.adjacency @ h)


def _papers_without_words(cured: bool) -> Parts:
    """Rows of counts are divided by their sums; some papers have no word at all: 0 / 0.

    GitHub danielegrattarola/keras-gat, issue #14 (citeseer, "the training loss is nan"): "maybe
    should add: X[np.isnan(X)] = 0. then it works!"; fixed.
    """
    y = torch.randint(4, (240,))
    rates = 0.15 + 0.5 * torch.rand(4, 40, generator=torch.Generator().manual_seed(2)).pow(3)
    x = torch.poisson(rates[y])
    x[torch.randperm(240)[:8]] = 0
    same = (y[:, None] == y[None]).float()
    adjacency = (torch.rand(240, 240) < 0.01 + 0.03 * same).float()
    adjacency = ((adjacency + adjacency.T + torch.eye(240)) > 0).float()
    x = x / x.sum(1, keepdim=True)
    if cured:
        x[x.isnan()] = 0
    model = _GraphNet(adjacency)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    is_known = torch.arange(240) < 120

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0])[is_known], batch[1][is_known])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def value(model: nn.Module) -> Tensor:
        said = model(x)[~is_known]
        return (said.argmax(1) == y[~is_known]).float().mean() * said.isfinite().all()

    batches = ((x, y) for _ in range(250))
    return Parts(model, optimizer, nn.CrossEntropyLoss(), batches, mean_goal(value, 0.7), step=step)


class _Forecaster(nn.Module):
    """A recurrent layer and a read-out of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.readout = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.lstm(x)[0][:, -1])


def _gaps_in_the_series(cured: bool) -> Parts:
    """The series has missing values, and windows of it are inputs and targets.

    GitHub Nixtla/neuralforecast, issue #186: "The loss becomes `nan` during training but it is hard
    to notice that the problem is in the data". The twin fills gaps with the value before.
    """
    (x, y), kept = waves()
    is_gap = torch.rand(x.shape) < 0.004
    x = x.masked_fill(is_gap, torch.nan)
    if cured:
        for place in range(1, x.shape[1]):
            x[:, place] = torch.where(x[:, place].isnan(), x[:, place - 1], x[:, place])
        x = x.nan_to_num(0.0)
    data = ((x, y), kept)
    model = _Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.85), steps=250)


def _column_without_spread(cured: bool) -> Parts:
    """Columns are divided by their standard deviation, and one column is constant: 0 / 0.

    After the kind of GitHub's "loss is nan" threads whose cause was the standardisation of a
    constant column, as in ratschlab/DeepSpot, issue #9: "you have nans in your input".
    """
    (x, y), (shown, labels) = digits(scale=1.0)
    if cured:
        x, shown = standardised(x), standardised(shown)
    else:
        x, shown = ((each - each.mean(0)) / each.std(0) for each in (x, shown))
    data = ((x, y), (shown, labels))
    model = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=200)


def _labels_of_another_order(cured: bool) -> Parts:
    """Features come out of a generator that shuffles, labels are its list of classes in order.

    GitHub keras-team/keras, pull request #7520: bottleneck features of a generator with
    `shuffle=True` and `generator.classes`; "not to use `shuffle` in `predict_generator`".
    """
    (x, y), kept = digits()
    order = torch.randperm(len(x))
    labels = y[order] if cured else y.sort().values
    data = ((x[order], labels), kept)
    model = mlp(64, 96, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=300)


def _masks_of_other_images(cured: bool) -> Parts:
    """Paths of images and of masks are listed apart, and the order of a listing is not sorted.

    GitHub Dana-Farber-AIOS/pathml, issue #56: "The masks in PanNuke dataloaders don't match the
    images ... `glob` is unordered".
    """
    (x, mask), kept = blobs()
    data = ((x, mask if cured else mask[torch.randperm(len(mask))]), kept)
    model = nn.Sequential(nn.Conv2d(1, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU())
    model.extend([nn.Conv2d(12, 12, 5, padding=2), nn.ReLU(), nn.Conv2d(12, 1, 1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, overlap(data, 0.65), steps=150, size=32)


LOOPS = loops_of(
    REPORTS,
    [
        ("report_screens_of_bytes", "inputs_unscaled", _screens_of_bytes),
        ("report_bank_in_its_own_units", "inputs_unscaled", _bank_in_its_own_units),
        ("report_curve_in_its_own_units", "inputs_unscaled", _curve_in_its_own_units),
        ("report_papers_without_words", "inputs_not_finite", _papers_without_words),
        ("report_gaps_in_the_series", "inputs_not_finite", _gaps_in_the_series),
        ("report_column_without_spread", "inputs_not_finite", _column_without_spread),
        ("report_labels_of_another_order", "labels_unlearnable", _labels_of_another_order),
        ("report_masks_of_other_images", "labels_unlearnable", _masks_of_other_images),
    ],
)
