"""The numbers of a large gradient, which is read in pieces, against numpy in float64.

Holds: probe/weights.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vgexp.probe import weights
from vgexp.probe.plan import PlanRow
from vgexp.probe.weights import UPDATE_NORM, WeightMeter

PIECE = 8
TINY = {torch.float32: 1e-30, torch.float64: 1e-300}
HUGE = {torch.float32: 1e37, torch.float64: 1e300}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PIECE", PIECE)


def cells_of(gradient: torch.Tensor, change: torch.Tensor | None = None) -> dict[str, float]:
    weight = nn.Parameter(torch.ones_like(gradient))
    weight.grad = gradient.clone()
    meter = WeightMeter([PlanRow("weight", weight, 1, "linear", is_wanted=True)], reuse=True)
    with torch.no_grad():
        meter.copy_weights()
        meter.take_gradients()
        if change is not None:
            weight += change
        meter.after_step()
    torch.testing.assert_close(weight.grad, gradient, rtol=0, atol=0, equal_nan=True)
    return {name: float(torch.cat(one.values)) for name, one in meter.collect().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5), (4, PIECE), (5, 5), (1, PIECE + 1)])
@pytest.mark.parametrize("num_zeros", [0, 1, 9])
@pytest.mark.parametrize("scales", [{}, TINY, HUGE])
def test_numbers_of_pieces_are_those_of_the_whole(
    dtype: torch.dtype, shape: tuple[int, int], num_zeros: int, scales: dict[torch.dtype, float]
) -> None:
    torch.manual_seed(0)
    gradient = torch.rand(shape, dtype=torch.float64).add_(0.1).mul_(scales.get(dtype, 1.0))
    gradient.view(-1)[::2] *= -1
    gradient.view(-1)[:num_zeros] = 0
    gradient = gradient.to(dtype)
    found = cells_of(gradient)
    exact = gradient.numpy().astype(np.longdouble)
    assert found["grad_norm"] == pytest.approx(float(np.sqrt((exact**2).sum())), rel=1e-6)
    assert found["grad_max"] == float(np.abs(exact).max())
    assert found["grad_zero_fraction"] == pytest.approx(num_zeros / exact.size, rel=1e-6)
    assert found["grad_norm_clipped"] == found["grad_norm"]


def test_a_gradient_of_zeros_and_one_that_is_not_finite_are_told() -> None:
    zeros = torch.zeros(3, 5)
    found = cells_of(zeros)
    assert (found["grad_norm"], found["grad_max"], found["grad_zero_fraction"]) == (0, 0, 1)
    zeros[2, 4] = torch.nan
    found = cells_of(zeros)
    assert np.isnan([found["grad_norm"], found["grad_max"]]).all()
    assert found["grad_zero_fraction"] == pytest.approx(14 / 15)
    zeros[2, 4] = torch.inf
    assert cells_of(zeros)["grad_norm"] == cells_of(zeros)["grad_max"] == np.inf


def test_the_change_of_a_weight_is_measured_where_its_copy_lies() -> None:
    torch.manual_seed(0)
    change = torch.randn(6, 5)
    found = cells_of(torch.ones(6, 5), change)
    assert found[UPDATE_NORM] == pytest.approx(float(change.double().norm()), rel=1e-6)
    assert found["weight_norm"] == pytest.approx(30**0.5, rel=1e-6)
