"""What a run says of the loss of a user's model: rows of `loss.csv`, and the sickness they show.

Holds: training/loss_meter.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vgexp
from vgexp import losses
from vgexp.config import (
    Config,
    CustomConfig,
    GaussianConfig,
    MlpConfig,
    OutputConfig,
    ProbeConfig,
    TrainConfig,
)
from vgexp.training.loss_meter import LossMeter

NETS = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, **kwargs):
        last = [nn.Softmax(-1)] if kwargs.get("softmax") else []
        super().__init__(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3), *last)
"""


@pytest.fixture
def run_of(user_folder: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    (user_folder / "nets.py").write_text(NETS)

    def run(name: str, *, is_user: bool = True, **kwargs: object) -> vgexp.Run:
        config = Config(
            model=CustomConfig("nets.Net", kwargs=kwargs) if is_user else MlpConfig(depth=2),
            data=GaussianConfig(num_examples=80, features=5, num_classes=3, batch_size=8),
            train=TrainConfig(steps=8, accumulate=2),
            probe=ProbeConfig(every=2, activations_every=4),
            output=OutputConfig(quiet=True),
        )
        return vgexp.run(config, tmp_path / name)

    return run


def test_the_first_call_of_a_measured_update_is_described() -> None:
    torch.manual_seed(0)
    meter = LossMeter(losses.LOSSES["cross_entropy"])
    outputs, targets = torch.randn(6, 3, requires_grad=True), torch.randint(0, 3, (6,))
    assert meter.loss.mean(outputs, targets) == losses.LOSSES["cross_entropy"].mean(
        outputs, targets
    )
    assert meter.take(0, 6, 1.0) is None, "it was not armed"
    meter.arm()
    meter.loss.mean(outputs.detach(), targets)
    loss = meter.loss.mean(outputs, targets)
    meter.loss.mean(2 * outputs, targets)
    take = meter.take(3, 6, 1.0)
    assert take is not None
    rows = {name: list(cells) for name, cells in take().columns.items()}
    assert rows["step"] == [3, 3, 3]
    assert rows["function"] == ["cross_entropy"] * 3
    assert rows["role"] == ["output", "target", "loss"]
    assert rows["shape"] == ["6x3", "6", "scalar"]
    assert rows["max"][0] == pytest.approx(outputs.max().item())
    assert rows["row_sum_min"][0] == pytest.approx(outputs.sum(1).min().item())
    assert rows["mean"][2] == pytest.approx(loss.item())
    meter.disarm()
    meter.loss.mean(outputs, targets)
    assert meter.take(4, 6, 1.0) is None


def test_a_run_of_a_users_model_has_the_table_and_finds_a_second_softmax(run_of) -> None:  # type: ignore[no-untyped-def]
    sick, sound, own = run_of("sick", softmax=True), run_of("sound"), run_of("own", is_user=False)
    assert list(sick.table("loss")["step"].unique()) == [0, 4, 7]
    assert sick.summary["cause_id"] == "double_softmax"
    assert sound.summary["cause_id"] is None
    assert "double_softmax" in sound.diagnose().checked
    assert not (own.folder / "loss.csv").exists()
