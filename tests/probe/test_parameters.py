"""`parameters.csv`: what has no row in `layers.csv`, and a total that adds up.

Holds: probe/parameters.py, probe/of_parameters.py, quantities/parameters.py
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vgexp
from vgexp.config import Config, MlpConfig, TrainConfig
from vgexp.probe import Probe


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.table = nn.Parameter(torch.randn(2, 4))
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.bias_pair = nn.Parameter(torch.zeros(1, 4))
        self.last = nn.Linear(4, 2)
        self.unused = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.scale * torch.tanh(self.norm(self.first(x))) + self.table[0] + self.bias_pair
        return self.last(h)


def stepped(
    net: nn.Module, *, clips: bool = False, scale: float = 1.0
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, tuple[Tensor, Tensor, Tensor]]]:
    """Both tables of one update; and of each parameter itself, gradient and change."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    with Probe(net, optimizer) as probe:
        torch.manual_seed(1)
        F.mse_loss(net(torch.randn(6, 3)), torch.randn(6, 2)).mul(scale).backward()
        grads = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        if clips:
            probe.before_clip()
            nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
        optimizer.step()
    found = {
        name: (before[name], grads[name], before[name] - p.detach())
        for name, p in net.named_parameters()
        if name in grads
    }
    return probe.to_frame("parameters"), probe.to_frame(), found


@pytest.mark.parametrize("clips", [False, True])
def test_every_parameter_without_a_row_in_layers_has_one(clips: bool) -> None:
    torch.manual_seed(0)
    frame, layers, found = stepped(Net(), clips=clips)
    kinds = dict(zip(frame["name"], frame["kind"], strict=True))
    assert kinds == {
        "scale": "other",
        "bias_pair": "bias",
        "unused": "other",
        "first.bias": "bias",
        "norm.weight": "norm",
        "norm.bias": "norm",
        "last.bias": "bias",
    }
    assert set(layers["name"]) == {"first.weight", "table", "last.weight"}
    for row in frame.set_index("name").drop("unused").itertuples():
        value, grad, change = found[row.Index]
        assert row.entries == value.numel()
        assert row.norm == pytest.approx(float(value.norm()), rel=1e-6)
        assert row.grad_norm == pytest.approx(float(grad.norm()), rel=1e-6)
        share = row.grad_norm_clipped / row.grad_norm if row.grad_norm else 1.0
        assert (share < 0.1) == clips
        if row.norm:
            ratio = float(change.norm() / value.norm())
            assert row.update_ratio == pytest.approx(ratio, rel=1e-4)
        else:
            assert math.isnan(row.update_ratio)
    unused = frame.set_index("name").loc["unused"]
    assert unused[["grad_norm", "grad_norm_clipped", "update_ratio"]].isna().all()
    total = math.sqrt(sum(float(grad.square().sum()) for _, grad, _ in found.values()))
    squares = frame["grad_norm"].pow(2).sum() + layers["grad_norm"].pow(2).sum()
    assert math.sqrt(squares) == pytest.approx(total, rel=1e-6)


def test_a_norm_underflows_no_sooner_than_its_dtype() -> None:
    torch.manual_seed(0)
    frame, *_ = stepped(Net())
    torch.manual_seed(0)
    small, *_ = stepped(Net(), scale=2.0**-90)
    wanted = frame["grad_norm"].dropna() * 2.0**-90
    assert list(small["grad_norm"].dropna()) == pytest.approx(list(wanted), rel=1e-5)


def test_a_run_of_ones_own_model_has_the_table_and_its_total_is_that_of_steps(
    tmp_path: Path,
) -> None:
    config = Config(model=MlpConfig(depth=3, width=8), train=TrainConfig(steps=21))
    run = vgexp.run(config, tmp_path / "a")
    for step in (0, 20):
        squares = sum(
            frame.loc[frame["step"] == step, "grad_norm"].pow(2).sum()
            for frame in (run.layers, run.parameters)
        )
        assert math.sqrt(squares) == pytest.approx(run.steps["grad_norm"][step], rel=1e-5)
    assert set(run.parameters["kind"]) == {"bias"}
    assert set(run.wiring["step"]) == {0, 20}
    assert set(run.wiring["name"]) == {*run.layers["name"], *run.parameters["name"]}
