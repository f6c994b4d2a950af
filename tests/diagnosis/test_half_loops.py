"""What a loop in float16 loses: squares that are 0, loss scales by hand that are too large or lack.

Holds: diagnosis/rules/half.py, diagnosis/rules/dtypes.py, diagnosis/rules/not_finite.py
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import vgexp
from vgexp.diagnosis import Diagnosis

Loss = Callable[[Tensor, Tensor], Tensor]


class Rms(nn.Module):
    """x over its root mean square."""

    def __init__(self, *, is_wide: bool) -> None:
        super().__init__()
        self.is_wide = is_wide

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if self.is_wide else x
        return (wide / wide.square().mean(-1, keepdim=True).sqrt()).to(x.dtype)


def diagnosed(
    net: nn.Module, step: Callable[[nn.Module, Loss, Tensor, Tensor], None], lr: float = 0.3
) -> Diagnosis:
    """Trains a classifier of 3 classes by a step of some kind, after its gradients were cleared."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(nn.CrossEntropyLoss())
        for _ in range(100):
            x = torch.randn(64, 10)
            optimizer.zero_grad()
            step(net, watched, x, x[:, :3].argmax(1))
            optimizer.step()
    return probe.diagnose()


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("is_wide", [False, True])
def test_a_norm_by_hand_of_small_numbers_underflows(is_wide: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), Rms(is_wide=is_wide), nn.Linear(16, 3))
    with torch.no_grad():
        net[0].weight.mul_(1e-4), net[0].bias.zero_()

    def step(net: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> None:
        loss(net(x.half()).float(), y).backward()

    found = diagnosed(net.half(), step, lr=1e-9)
    assert (found.cause == "underflow") is not is_wide
    assert "square is below" in found.findings[0].sentence or is_wide
    assert found.cause != "overflow"


@pytest.mark.parametrize("is_autocast", [True, False])
@pytest.mark.parametrize(("scale", "cause"), [(2.0**24, "overflow"), (2.0**7, None)])
def test_a_loss_scale_by_hand_that_is_too_large(
    is_autocast: bool, scale: float, cause: str | None
) -> None:
    def step(net: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> None:
        with torch.autocast("cpu", torch.float16, enabled=is_autocast):
            value = loss(net(x if is_autocast else x.half()), y)
        (value * scale).backward()
        for p in net.parameters():
            assert p.grad is not None
            p.grad /= scale

    net = classifier()
    found = diagnosed(net if is_autocast else net.half(), step)
    assert found.cause == cause
    assert cause is None or "the backward pass begins with" in found.findings[0].sentence


@pytest.mark.parametrize(("scale", "cause"), [(1.0, "underflow"), (2.0**16, None)])
def test_a_small_weight_of_the_loss_needs_a_loss_scale(scale: float, cause: str | None) -> None:
    def step(net: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> None:
        with torch.autocast("cpu", torch.float16):
            value = 1e-6 * loss(net(x), y)
        (value * scale).backward()
        for p in net.parameters():
            assert p.grad is not None
            p.grad /= scale

    assert diagnosed(classifier(), step, lr=3e5).cause == cause
