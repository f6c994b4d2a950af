"""A probe that nobody drains keeps numbers only, and they are those of one that is drained.

Holds: probe/block.py
"""

from __future__ import annotations

import gc

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from vgexp import metrics
from vgexp.probe import Probe
from vgexp.probe.block import STEPS_TOGETHER


def _tensors() -> list[Tensor]:
    gc.collect()
    return [x for x in gc.get_objects() if issubclass(type(x), Tensor)]


def _train(
    num_steps: int, *, counts_at: tuple[int, ...] = (), **options: int
) -> tuple[Probe, list[int]]:
    """Trains, and counts the tensors that there are after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.GELU(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    num_tensors = []
    # Those of other tests in this process, which may go at any time.
    others = {id(x) for x in _tensors()} if counts_at else set()
    with Probe(model, optimizer, **options) as probe:
        for _ in range(num_steps):
            optimizer.zero_grad()
            model(torch.randn(4, 5, generator=generator)).square().mean().backward()
            optimizer.step()
            if probe.step in counts_at:
                num_tensors.append(sum(id(x) not in others for x in _tensors()))
    return probe, num_tensors


def test_a_measured_step_leaves_no_tensor_of_its_own() -> None:
    _, (early, late) = _train(60, counts_at=(5, 55), every=1, activations_every=1)
    assert late == early


@pytest.mark.parametrize("cadence", [(1, 1), (1, 3)])
def test_rows_do_not_depend_on_how_steps_are_kept_together(
    monkeypatch: pytest.MonkeyPatch, cadence: tuple[int, int]
) -> None:
    every, activations_every = cadence
    num_steps = STEPS_TOGETHER + 3
    together = _train(num_steps, every=every, activations_every=activations_every)[0].to_frame()
    monkeypatch.setattr("vgexp.probe.block.STEPS_TOGETHER", 1)
    alone = _train(num_steps, every=every, activations_every=activations_every)[0].to_frame()
    pd.testing.assert_frame_equal(together, alone, check_exact=True)
    assert len(together) == 3 * num_steps


@pytest.mark.parametrize("exponent", [-149, -148, -130, -76, -75, -74, -64, -58, 0, 60, 126])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_are_right_at_every_magnitude(exponent: int, dtype: torch.dtype) -> None:
    unit = torch.tensor([[3.0, 0.0, 4.0, 12.0], [1.0, 2.0, 2.0, 4.0]], dtype=torch.float64)
    x = (unit * 2.0**exponent / 16).to(dtype)
    right = x.double().square().sum(1).sqrt().to(dtype)
    for rows in (x, x[:1], torch.cat((x, torch.ones_like(x)))):
        torch.testing.assert_close(metrics.row_norms(rows)[:1], right[:1], rtol=2e-7, atol=1.5e-45)
    for row, norm in zip(x, right, strict=True):
        peak, measured = metrics.row_peaks_and_norms(row[None].clone())
        assert peak.item() == row.max().item()
        torch.testing.assert_close(measured[0], norm, rtol=2e-7, atol=1.5e-45)
