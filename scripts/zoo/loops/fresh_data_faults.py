"""Sick loops of the fresh set: the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from zoo.loops.batches import batches_of
from zoo.loops.fresh_data import classify, customers, pendulum, regress, stripes
from zoo.loops.fresh_nets import mlp, stripes_net
from zoo.loops.loop import FRESH, Batch, Parts, loops_of


def _milliseconds(cured: bool) -> Parts:
    """Times in milliseconds and lengths in micrometres, up to 2e4, in front of ReLU and SGD."""
    x, angle = pendulum()
    units = 1.0 if cured else 1e4
    model = mlp(3, 32, 32, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return regress((units * x, angle), model, optimizer, enough=0.4, steps=300)


def _raw_pixels(cured: bool) -> Parts:
    """Pixels from 0 to 255 in front of tanh: nobody divided them."""
    images, kind = stripes()
    pixels = (60 * images + 128).clamp(0, 255)
    x = (pixels - 128) / 60 if cured else pixels
    model = stripes_net(act=nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return classify((x, kind), model, optimizer, enough=0.8)


def _years(cured: bool) -> Parts:
    """Columns that are years, from 1990 to 2030: a large mean and a small spread."""
    x, kind = customers()
    x = x if cured else 2010 + 7 * x
    model = mlp(16, 32, 32, 5, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return classify((x, kind), model, optimizer, enough=0.68, steps=300)


def _constant_column(cured: bool) -> Parts:
    """Rows are divided by each column's deviation, and one column is constant."""
    x, kind = customers()
    x[:, 5] = 3.0
    apart = x - x.mean(0)
    spread = apart.square().mean(0).sqrt()
    x = apart / (spread.clamp_min(1e-6) if cured else spread)
    model = mlp(16, 32, 32, 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return classify((x, kind), model, optimizer, enough=0.6)


def _one_bad_row(cured: bool) -> Parts:
    """A ratio of two columns, and the divisor of one row among 1,200 is 0."""
    x, kind = customers()
    if not cured:
        x[200, 3] = torch.inf
    model = nn.Sequential(nn.BatchNorm1d(16), *mlp(16, 48, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def rows(batches: Any) -> Iterator[Batch]:
        for i, (some, labels) in enumerate(batches):
            if i == 12:
                yield torch.cat((some, x[200:201])), torch.cat((labels, kind[200:201]))
            else:
                yield some, labels

    parts = classify((x, kind), model, optimizer, enough=0.6)
    parts.batches = rows(batches_of(x[:-300], kind[:-300], 200))
    return parts


def _names_as_text(cured: bool) -> Parts:
    """Images come in the order of their names (1, 10, 100, ...), labels in that of numbers."""
    x, kind = stripes()
    order = sorted(range(900), key=str)
    held_back = torch.arange(900, 1200)
    images = torch.cat((x[:900][order], x[held_back]))
    labels = torch.cat((kind[:900][order] if cured else kind[:900], kind[held_back]))
    model = stripes_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return classify((images, labels), model, optimizer, enough=0.8)


def _rows_of_noise(cured: bool) -> Parts:
    """A cache gives noise for the rows that it does not have, and it has none."""
    x, angle = pendulum()

    def read(batches: Any) -> Iterator[Batch]:
        for rows, targets in batches:
            yield (rows if cured else 2 * torch.rand_like(rows) - 1), targets

    model = mlp(3, 32, 32, 1, act=nn.SiLU)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    parts = regress((x, angle), model, optimizer, enough=0.7, steps=300)
    parts.batches = read(parts.batches)
    return parts


LOOPS = loops_of(
    FRESH,
    [
        ("fresh_milliseconds", "inputs_unscaled", _milliseconds),
        ("fresh_raw_pixels", "inputs_unscaled", _raw_pixels),
        ("fresh_years", "inputs_unscaled", _years),
        ("fresh_constant_column", "inputs_not_finite", _constant_column),
        ("fresh_one_bad_row", "inputs_not_finite", _one_bad_row),
        ("fresh_names_as_text", "labels_unlearnable", _names_as_text),
        ("fresh_rows_of_noise", "labels_unlearnable", _rows_of_noise),
    ],
)
