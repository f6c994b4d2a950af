"""Recurrences whose state is cut from the graph at every step in time.

Holds: probe/cut_states.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vgexp.guests.probe import Probe

SEQUENCE = torch.linspace(-1, 1, 24).view(3, 8, 1)


class ByCell(nn.Module):
    """A cell of torch; `change` is what is done to the state before each step."""

    def __init__(self, change: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.cell, self.readout = nn.GRUCell(1, 4), nn.Linear(4, 1)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for t, value in enumerate(x.unbind(1)):
            h = self.cell(value, self.change(h, t))
        return self.readout(h)


class ByHand(ByCell):
    """A cell of somebody's own, with one matrix for the state and one for the inputs."""

    def __init__(self, change: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__(change)
        self.cell = nn.Linear(4, 4)
        self.inputs = nn.Linear(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for t, value in enumerate(x.unbind(1)):
            h = torch.tanh(self.inputs(value) + self.cell(self.change(h, t)))
        return self.readout(h)


def cut_in(model: nn.Module, loop: Callable[[nn.Module, Any], None] | None = None) -> Any:
    """The modules that the probe names, after two updates."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        for _ in range(2):
            optimizer.zero_grad()
            if loop is None:
                model(SEQUENCE).square().mean().backward()
            else:
                loop(model, optimizer)
            optimizer.step()
    found = probe.gather({}).metrics.get("cut_states")
    return [tuple(found)] if found else []


CUTS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda h, _: h.detach(),
    lambda h, _: h.data,
    lambda h, _: torch.tensor(h.tolist()),
    lambda h, _: h.detach().clone(),
)


@pytest.mark.parametrize("cut", CUTS)
def test_a_state_that_is_cut_at_every_step_is_found(cut: Any) -> None:
    assert cut_in(ByCell(cut)) == [("cell",)]


@pytest.mark.parametrize("cut", [CUTS[0], CUTS[2], CUTS[3]])
def test_a_cell_of_somebodys_own_is_found_too(cut: Any) -> None:
    ((*names,),) = cut_in(ByHand(cut))
    assert "cell" in names


@pytest.mark.parametrize("cls", [ByCell, ByHand])
@pytest.mark.parametrize(
    "change",
    [
        lambda h, _: h,
        # Pieces of four steps.
        lambda h, t: h.detach() if t == 4 else h,
        # A copy is kept to look at, and the state goes on.
        lambda h, _: (h.detach().tolist(), h)[1],
    ],
)
def test_a_state_that_keeps_its_graph_is_none(cls: Any, change: Any) -> None:
    assert cut_in(cls(change)) == []


class Step(nn.Module):
    """One step in time; the loop hands the state on."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(1, 4)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.cell(x, h)


@pytest.mark.parametrize("passes", ["one", "each"])
@pytest.mark.parametrize("cuts", [True, False])
def test_a_loop_that_calls_the_model_at_each_step_is_told_from_one_of_pieces(
    passes: str, cuts: bool
) -> None:
    """A piece of a sequence has a backward pass of its own, after which its graph is gone."""

    def loop(model: nn.Module, _: Any) -> None:
        h, losses = torch.zeros(3, 4), []
        for value in SEQUENCE.unbind(1):
            h = model(value, h.detach() if cuts or passes == "each" else h)
            losses.append(h.square().mean())
            if passes == "each":
                losses.pop().backward()
        if losses:
            sum(losses).backward()

    found = cut_in(Step(), loop)
    assert bool(found) == (cuts and passes == "one")


def test_views_of_a_batch_and_micro_batches_are_no_steps_in_time() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.readout = nn.Linear(1, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            views = [self.encoder(x[:, 0] + k) for k in range(4)]
            target = views[0].detach()
            return self.readout(sum(views) - target)

    assert cut_in(Twins()) == []

    def loop(model: nn.Module, _: Any) -> None:
        for part in SEQUENCE.split(1):
            model(part).square().mean().backward()

    assert cut_in(Twins(), loop) == []
