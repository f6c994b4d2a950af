"""The largest magnitude and the share of outliers of h, against numpy in float64.

Holds: probe/moments.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import act_numbers, flat, measured_rows
from torch import nn

from vgexp import Probe


def made(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.GELU(), nn.Linear(30, 20), nn.Tanh())
    model.append(nn.Linear(20, 3))
    with torch.no_grad():
        model[0].weight.mul_(8)
    return model.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(7,), (5, 2, 9)])
def test_they_are_those_of_all_micro_batches_together(
    dtype: torch.dtype, sizes: tuple[int, ...]
) -> None:
    model = made(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = [torch.randn(size, 4).to(dtype) for size in sizes]
    with Probe(model, optimizer) as probe:
        for x in batches:
            model(x).float().square().sum().backward()
        optimizer.step()
    rows = measured_rows(probe)
    hs = [flat([model[: 2 * i + 2](x) for x in batches]) for i in range(2)]
    for row, h in zip(rows, hs, strict=False):
        wanted = act_numbers(h)
        assert row["act_max"] == wanted["act_max"]
        assert row["act_outlier_fraction"] == pytest.approx(wanted["act_outlier_fraction"], 1e-6)
    assert 0 < rows[0]["act_outlier_fraction"] < 1
    assert rows[1]["act_outlier_fraction"] == 0
    assert rows[2]["act_max"] is rows[2]["act_outlier_fraction"] is None


def test_a_value_that_is_not_finite_is_told() -> None:
    model = made(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(6, 4)
    x[2] = torch.nan
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for micro_batch in x.split(2):
            model(micro_batch).sum().backward()
        optimizer.step()
    rows = measured_rows(probe)
    assert np.isnan([rows[0]["act_max"], rows[0]["act_outlier_fraction"]]).all()
