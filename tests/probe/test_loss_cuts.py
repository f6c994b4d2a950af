"""Where autograd's graph behind a loss ends ahead of the weights.

Holds: probe/loss_cuts.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vgexp.probe import Probe
from vgexp.probe.loss_cuts import cut_by, reaches_any


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def outputs() -> Tensor:
    """Those of a linear layer."""
    torch.manual_seed(0)
    return nn.Linear(3, 2)(torch.randn(4, 3))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda o: o.sigmoid().round().mean(), "Round"),
        (lambda o: (2 - o.sign()).square().sum(), "Sign"),
        (lambda o: o.floor().mean() + o.ceil().mean(), "Ceil"),
        # Another path leads to the weights.
        (lambda o: o.round().mean() + o.mean(), None),
        # The gradient goes straight through, or may do so.
        (lambda o: (o + (o.round() - o).detach()).mean(), None),
        (lambda o: _Straight.apply(o).mean(), None),
        (lambda o: o.square().mean(), None),
        # What is computed again in the backward pass hides its weights.
        (lambda o: checkpoint(nn.Linear(2, 2), o.round(), use_reentrant=True).mean(), None),
        (lambda o: o.round().detach().mean(), None),
    ],
)
def test_a_function_without_slope_that_all_paths_pass_cuts_a_loss(
    loss: Callable[[Tensor], Tensor], expected: str | None
) -> None:
    found = cut_by(loss(outputs()))
    assert (found and found.partition("Backward")[0]) == expected


def test_a_loss_reaches_an_output_that_it_was_given_or_another_alone() -> None:
    o, other = outputs(), nn.Parameter(torch.zeros(()))
    assert reaches_any(o.log_softmax(1).mean(), [o]) is True
    assert reaches_any(o.detach().mean() + other, [o]) is False
    assert reaches_any(o.mean(), [o.tanh(), o]) is True
    assert reaches_any(other * 2, [other]) is None  # nothing made it
    assert reaches_any(torch.zeros(()), [o]) is None


def test_nothing_is_said_of_a_graph_that_is_too_large_to_be_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    o = outputs()
    loss = o.detach().requires_grad_().tanh().round().mean()
    monkeypatch.setattr("vgexp.probe.loss_cuts._MOST_NODES", 2)
    assert reaches_any(loss, [o]) is None
    assert cut_by(o.tanh().round().sin().cos().mean()) is None


def test_the_table_of_a_probe_says_it_of_the_loss_alone() -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        loss = probe.watch_loss(lambda output: output.round().mean())
        loss(model(torch.ones(4, 3))).backward()
        optimizer.step()
    frame = probe.to_frame("loss").set_index("role")
    assert frame.loc["loss", "cut_by"].startswith("RoundBackward")
    assert frame.loc["loss", ["reaches_output", "is_steep"]].tolist() == [1, 0]
    assert frame.loc["output", ["cut_by", "reaches_output", "is_steep"]].isna().all()
