"""Sick loops of the half that is only reported: wiring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.data_held import count_on, follow_patients, forecast, mark_shapes, name_shapes
from zoo.loops.loop import HELD, Parts, loops_of
from zoo.loops.nets_held import Counter, Forecaster, Marker, conv_net


def _swapped_decoder(cured: bool) -> Parts:
    """A segmentation net whose decoder is replaced by a narrower one once the optimizer is made."""
    model = Marker()
    optimizer = torch.optim.Adam(model.up.parameters(), lr=4e-3)
    model.up = nn.Sequential(nn.Conv2d(36, 4, 1), nn.Softplus(), nn.Conv2d(4, 1, 1))
    if cured:
        optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    return mark_shapes(model, optimizer)


class _Mixed(nn.Module):
    """Mixes the values of a series by layers in a list of one kind or another."""

    def __init__(self, container: Any) -> None:
        super().__init__()
        self.mixers = container([nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)])
        self.readout = nn.Linear(2, 1)

    def forward(self, x_NT1: Tensor) -> Tensor:
        h = x_NT1[:, :, 0]
        for mixer in self.mixers:
            h = nn.functional.gelu(mixer(h))
        return self.readout(h)


def _tuple_of_layers(cured: bool) -> Parts:
    model = _Mixed(nn.ModuleList if cured else tuple)
    return forecast(model, torch.optim.Adam(model.parameters(), lr=5e-3), steps=500)


def _frozen_by_name(cured: bool) -> Parts:
    """A filter that was meant for `embed` matches every weight, as all have `e` in them."""
    model = Counter()
    for name, parameter in model.named_parameters():
        if ("embed" if cured else "e") in name and "readout" not in name:
            parameter.requires_grad_(cured)
    trained = [p for p in model.parameters() if p.requires_grad]
    return count_on(model, torch.optim.AdamW(trained, lr=3e-3))


class _Pooled(nn.Module):
    """Features are pooled in numpy, and come back as a new tensor."""

    def __init__(self, *, in_numpy: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 2, 1),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 4))
        self.in_numpy = in_numpy

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        if self.in_numpy:
            return self.head(torch.from_numpy(h.detach().numpy().max((2, 3))))
        return self.head(h.amax((2, 3)))


def _through_numpy(cured: bool) -> Parts:
    model = _Pooled(in_numpy=not cured)
    return name_shapes(model, torch.optim.Adam(model.parameters(), lr=4e-3), steps=300, enough=0.7)


def _new_leaf(cured: bool) -> Parts:
    """The loss is made anew as a leaf, `torch.tensor(..., requires_grad=True)`."""
    model = conv_net()

    def loss(output: Tensor, y: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(output, y)
        return value if cured else torch.tensor(value.item(), requires_grad=True)

    return name_shapes(model, torch.optim.Adam(model.parameters(), lr=4e-3), loss)


class _States(nn.Module):
    """A cell that is called step by step, whose state is cut by .data after each."""

    def __init__(self, *, is_cut: bool) -> None:
        super().__init__()
        self.cell, self.readout, self.is_cut = nn.GRUCell(1, 16), nn.Linear(16, 1), is_cut

    def forward(self, x_NT1: Tensor) -> Tensor:
        h = x_NT1.new_zeros(len(x_NT1), 16)
        for t in range(x_NT1.shape[1]):
            h = self.cell(x_NT1[:, t], h)
            h = h.data if self.is_cut else h
        return self.readout(h)


def _states_as_data(cured: bool) -> Parts:
    model = _States(is_cut=not cured)
    return forecast(model, torch.optim.Adam(model.parameters(), lr=0.01), enough=0.9)


def _cleared(cured: bool) -> Parts:
    """Gradients are cleared behind the clipping, and before the step."""
    model = Forecaster()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        loss(model(batch[0]), batch[1]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not cured:
            model.zero_grad()
        optimizer.step()
        optimizer.zero_grad()

    return forecast(model, torch.optim.Adam(model.parameters(), lr=0.01), step=step)


def _kept(cured: bool) -> Parts:
    """zero_grad is called once, before the loop."""
    model = conv_net()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        if cured:
            model.zero_grad(set_to_none=False)
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return name_shapes(model, optimizer, step=step, enough=0.8)


def _no_step(cured: bool) -> Parts:
    """The scheduler steps, and the optimizer does not."""
    model = nn.Sequential(nn.Linear(10, 24), nn.Tanh(), nn.Linear(24, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 500)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        if cured:
            optimizer.step()
        schedule.step()

    return follow_patients(model, optimizer, step=step)


LOOPS = loops_of(
    HELD,
    (
        ("held_swapped_decoder", "not_in_optimizer", _swapped_decoder),
        ("held_tuple_of_layers", "not_registered", _tuple_of_layers),
        ("held_frozen_by_name", "frozen", _frozen_by_name),
        ("held_through_numpy", "graph_cut", _through_numpy),
        ("held_new_leaf", "graph_cut", _new_leaf),
        ("held_states_as_data", "graph_cut", _states_as_data),
        ("held_cleared", "gradient_cleared", _cleared),
        ("held_kept", "gradient_kept", _kept),
        ("held_no_step", "no_update", _no_step),
    ),
)
