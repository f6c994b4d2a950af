"""Terms of a loss that became numbers, by which no gradient comes back.

Holds: probe/loss_numbers.py, diagnosis/rules/graph_cuts.py
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import vgexp
from vgexp.probe import Probe
from vgexp.probe.loss_numbers import Call, NumberWatch, share_added

LOGGED: dict[str, float] = {}


def error(output: Tensor, y: Tensor) -> Tensor:
    return (output - y).square().mean()


def penalty(output: Tensor) -> Tensor:
    return 0.1 * output.square().mean()


def trained(loss: Callable[..., Tensor], steps: int = 2, every: int = 1) -> vgexp.Probe:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with vgexp.Probe(net, optimizer, every=every, activations_every=every) as probe:
        watched = probe.watch_loss(loss)
        for _ in range(steps):
            x = torch.randn(16, 3)
            optimizer.zero_grad()
            watched(net(x), x[:, :1] + 2).backward()
            optimizer.step()
    return probe


def logs(output: Tensor, y: Tensor) -> Tensor:
    total = 0
    LOGGED["penalty"] = penalty(output).item()
    return total + error(output, y)


def sums_as_module(output: Tensor, y: Tensor) -> Tensor:
    return AsModule()(output, y)


class AsModule(nn.Module):
    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        return error(output, y).item() + penalty(output)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: error(o, y).item() + penalty(o),
        lambda o, y: penalty(o) + float(error(o, y)),
        lambda o, y: torch.tensor(error(o, y)) + penalty(o),
        lambda o, y: penalty(o) + 0.5 * error(o, y).detach(),
        lambda o, y: 3 * error(o, y).item() + (2 * error(o, y).item() + penalty(o)),
        lambda o, y: torch.stack([error(o, y).detach(), penalty(o)]).sum(),
        AsModule(),
        sums_as_module,
    ],
)
@pytest.mark.filterwarnings("ignore:To copy construct", "ignore:Converting a tensor")
def test_a_term_that_is_added_as_a_number_is_found(loss: Callable[..., Tensor]) -> None:
    table = trained(loss).to_frame("loss")
    shares = table.loc[table["role"] == "loss", "number_share"]
    assert torch.isnan(torch.tensor(shares.iloc[0]))  # one call cannot tell
    assert 0.5 < shares.iloc[1] <= 1
    found = trained(loss, 120, 20).diagnose()
    assert found.cause == "graph_cut"
    assert "turned into a number" in found.findings[0].sentence


@pytest.mark.parametrize(
    "loss",
    [
        error,
        logs,
        lambda o, y: error(o, y) + penalty(o) + 1e-8,
        # A weight, and what makes a term of the same size as another.
        lambda o, y: error(o, y) * (1 + penalty(o).item()) + 0.5,
        lambda o, y: error(o, y) + penalty(o) / penalty(o).detach() * 0.1,
        # What scores are shifted by changes no loss.
        lambda o, y: error(o - o.max().detach(), y - o.max().item()),
        # It is a term with its gradient as well.
        lambda o, y: error(o, y) + penalty(o) + 0 * penalty(o).item(),
        nn.MSELoss(),
    ],
)
def test_numbers_that_are_logged_or_weigh_are_no_terms(loss: Callable[..., Tensor]) -> None:
    table = trained(loss, 3).to_frame("loss")
    assert table["number_share"].isna().all()


def test_what_is_added_has_to_be_the_same_multiple_in_two_calls() -> None:
    assert share_added(Call((2.0,), (4.0,)), Call((3.0,), (6.0,)), 8.0) == 0.75
    assert share_added(Call((2.0,), (4.0,)), Call((3.0,), (4.0,)), 8.0) is None
    assert share_added(Call((2.0,), (4.0,)), Call((2.0,), (4.0,)), 8.0) is None  # it did not move
    assert share_added(Call((2.0, 1.0), (3.0,)), Call((3.0, 5.0), (8.0,)), 16.0) == 0.5  # of both
    assert share_added(Call((2.0,), (4.0,)), Call((), ()), 8.0) is None


def test_the_mode_is_left_where_a_loss_raises() -> None:
    class Failing(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise ValueError("not today")

    net = nn.Linear(3, 1)
    with Probe(net, torch.optim.SGD(net.parameters(), lr=0.1)) as probe:
        for failing in (Failing(), Failing().forward):
            watched = probe.watch_loss(failing)
            with pytest.raises(ValueError, match="not today"):
                watched(net(torch.ones(2, 3)))
            assert torch.overrides._get_current_function_mode_stack() == []
    x = torch.ones((), requires_grad=True)
    with NumberWatch() as watch:
        assert x.item() + x == 2
    assert watch.take(x * 2) == Call((), (1.0,))


def test_a_loss_that_no_backward_pass_goes_through_is_told() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(nn.MSELoss())
        for _ in range(100):
            x = torch.randn(16, 3)
            optimizer.zero_grad()
            output = net(x)
            (watched(output, x[:, :1]).item() + penalty(output)).backward()
            optimizer.step()
    found = probe.diagnose()
    assert (found.health, found.cause) == ("sick", "graph_cut")
    assert "No backward pass goes through the loss MSELoss" in found.findings[0].sentence


@pytest.mark.parametrize("is_module", [False, True])
def test_a_loss_by_frozen_attention_has_the_same_bits(is_module: bool) -> None:
    """torch leaves its fast path where a mode is on; what is compared with has no gradient, and
    takes it."""

    def weight_after(*, is_watched: bool) -> Tensor:
        torch.manual_seed(0)
        frozen = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
        loss = Perceptual(frozen.requires_grad_(False))
        net = nn.Linear(16, 16)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with vgexp.Probe(net, optimizer, every=1, activations_every=1) as probe:
            function = loss if is_module else loss.forward
            watched = probe.watch_loss(function) if is_watched else function
            for _ in range(4):
                optimizer.zero_grad()
                watched(net(torch.randn(4, 5, 16)), torch.randn(4, 5, 16)).backward()
                optimizer.step()
        return net.weight.detach()

    assert torch.equal(weight_after(is_watched=True), weight_after(is_watched=False))


class Perceptual(nn.Module):
    def __init__(self, frozen: nn.Module) -> None:
        super().__init__()
        self.frozen = frozen

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        return error(self.frozen(output), self.frozen(y))


class Tag:
    """Lives as long as the graph that has a hook of it."""

    def see(self, _: Tensor) -> None: ...


def fails(output: Tensor, y: Tensor) -> Tensor:
    LOGGED["error"] = error(output, y).item()
    raise ValueError("no loss")


def gives_a_number(output: Tensor, y: Tensor) -> float:
    return error(output, y).item()


@pytest.mark.parametrize("loss", [fails, gives_a_number])
def test_no_graph_is_kept_of_a_call_that_gave_no_loss(loss: Callable[..., Tensor]) -> None:
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(loss)
        output = net(torch.randn(4, 3))
        tag = Tag()
        output.register_hook(tag.see)
        kept = weakref.ref(tag)
        with contextlib.suppress(ValueError):
            watched(output, torch.zeros(4, 1))
        output.mean().backward()
        optimizer.step()
        del output, tag
        assert kept() is None
