"""The share of dead units where a layer has more entries a unit than are looked at first.

Holds: probe/moments.py
"""

from __future__ import annotations

import pytest
import torch
from reference import measured_rows
from torch import Tensor, nn

from vgexp import Probe
from vgexp.probe import moments

NUM_UNITS = 5
MANY = 4 * moments.FEW


class Net(nn.Module):
    """z = x, then an activation; the weight makes no difference between units."""

    def __init__(self, layer: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.layer, self.activation = layer, activation
        nn.init.zeros_(layer.weight)
        with torch.no_grad():
            layer.weight.flatten(1).fill_diagonal_(1)
        nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layer(x))


def z_of(shape: tuple[int, ...], unit_axis: int, dead_everywhere: int, at: int) -> Tensor:
    """z of units that are dead up to the entry `at`, but for the last two units."""
    z = torch.full(shape, -200.0)
    units = z.movedim(unit_axis, -1).flatten(0, -2).clone()
    units[at, dead_everywhere:] = 1.0
    units[:, -1] = 0.5
    others = [size for axis, size in enumerate(shape) if axis != unit_axis]
    return units.unflatten(0, others).movedim(-1, unit_axis).contiguous()


@pytest.mark.parametrize(
    ("shape", "layer", "unit_axis"),
    [
        ((MANY, NUM_UNITS), nn.Linear(NUM_UNITS, NUM_UNITS), 1),
        ((2, MANY, NUM_UNITS), nn.Linear(NUM_UNITS, NUM_UNITS), 2),
        ((MANY, 3, NUM_UNITS), nn.Linear(NUM_UNITS, NUM_UNITS), 2),
        ((3, NUM_UNITS, 8, 16), nn.Conv2d(NUM_UNITS, NUM_UNITS, 1), 1),
    ],
)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.Softplus(), nn.Tanh()])
@pytest.mark.parametrize("dead_everywhere", [0, 2])
def test_a_unit_that_lives_at_its_last_entry_alone_is_not_dead(
    shape: tuple[int, ...],
    layer: nn.Module,
    unit_axis: int,
    activation: nn.Module,
    dead_everywhere: int,
) -> None:
    model = Net(layer, activation)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = z_of(shape, unit_axis, dead_everywhere, at=-1)
    with Probe(model, optimizer) as probe:
        model(x).sum().backward()
        optimizer.step()
    u = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(activation(u).sum(), u)
    wanted = (slope.movedim(unit_axis, -1).flatten(0, -2) == 0).all(0).double().mean()
    assert float(wanted) == pytest.approx(dead_everywhere / NUM_UNITS)
    assert measured_rows(probe)[0]["dead_fraction"] == pytest.approx(float(wanted))


def test_a_few_entries_show_that_no_unit_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """phi' costs as much as the activation itself, so that it is not computed everywhere."""
    model = Net(nn.Linear(NUM_UNITS, NUM_UNITS), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    looked_at = []
    largest_of_units = moments._largest_of_units
    monkeypatch.setattr(
        moments,
        "_largest_of_units",
        lambda size, axes: looked_at.append(size.numel()) or largest_of_units(size, axes),
    )
    with Probe(model, optimizer):
        model(torch.ones(MANY, NUM_UNITS)).sum().backward()
        optimizer.step()
    assert looked_at == [moments.FEW * NUM_UNITS]
