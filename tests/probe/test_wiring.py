"""`wiring.csv`: what each parameter needs, gets and does.

Holds: probe/wiring.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from vgexp.probe import Probe

INPUTS = torch.linspace(-1, 1, 12).view(4, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.bias = self.first.bias
        self.within: Callable[[Tensor], Tensor] = torch.tanh

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.within(self.first(x)))


def trained(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    num_steps: int = 1,
    *,
    clear: Callable[[int], None] | None = None,
    **every: int,
) -> tuple[pd.DataFrame, Probe]:
    """The table of a few updates; `clear` is called before each backward pass."""
    with Probe(net, optimizer, **every) as probe:
        for step in range(num_steps):
            if clear is None:
                optimizer.zero_grad()
            else:
                clear(step)
            net(INPUTS).square().mean().backward()
            optimizer.step()
    return probe.to_frame("wiring"), probe


def sgd(net: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    torch.manual_seed(0)
    return torch.optim.SGD(net.parameters(), lr=lr)


def cells(frame: pd.DataFrame, name: str, step: int = 0) -> dict[str, Any]:
    (row,) = frame[(frame["name"] == name) & (frame["step"] == step)].to_dict("records")
    return row


def hooks_of(net: nn.Module) -> int:
    return sum(len(p._post_accumulate_grad_hooks or ()) for p in net.parameters())


def test_a_parameter_that_is_trained_says_so_and_nothing_more_follows() -> None:
    net = Net()
    frame, probe = trained(net, sgd(net), 30, every=1)
    assert list(frame["name"]) == ["first.weight", "first.bias", "second.weight"]
    assert list(frame["step"]) == [0, 0, 0]
    row = cells(frame, "first.bias")
    assert row.pop("also_named") == "second.bias"
    assert pd.isna(row.pop("gradient_kept"))
    assert row.pop("gradient_left") == 1
    assert list(row.values()) == [0, "first.bias", 1, 1, 0.1, 1, "finite", 1, 0]
    assert hooks_of(net) == 0
    assert {"parameters", "wiring"} <= {*probe.tables}


def test_frozen_and_forgotten_parameters_are_told_apart() -> None:
    net = Net()
    net.first.weight.requires_grad_(False)
    frame, _ = trained(net, torch.optim.SGD([net.first.weight, net.first.bias], lr=0.1))
    frozen, forgotten = cells(frame, "first.weight"), cells(frame, "second.weight")
    assert (frozen["requires_grad"], frozen["gradient"], frozen["updated"]) == (0, "none", 0)
    assert (forgotten["requires_grad"], forgotten["in_optimizer"]) == (1, 0)
    assert (forgotten["gradient"], forgotten["updated"]) == ("finite", 0)
    assert pd.isna(forgotten["lr"])


def test_a_cut_graph_and_a_cleared_gradient_are_told_apart() -> None:
    net = Net()
    net.within = torch.Tensor.detach
    frame, _ = trained(net, sgd(net))
    cut = cells(frame, "first.weight")
    assert (cut["gradient_came"], cut["gradient"], cut["updated"]) == (0, "none", 0)
    net = Net()
    optimizer = sgd(net)
    with Probe(net, optimizer) as probe:
        net(INPUTS).square().mean().backward()
        optimizer.zero_grad()
        optimizer.step()
    cleared = cells(probe.to_frame("wiring"), "first.weight")
    assert (cleared["gradient_came"], cleared["gradient"], cleared["updated"]) == (1, "none", 0)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda gradient: gradient, 1.0),
        (lambda gradient: gradient.mul_(0.25), 0.25),
        # A product with 0 keeps the signs of entries, and zeros that are written do not.
        (lambda gradient: gradient.mul_(0.0), 0.0),
        (lambda gradient: gradient.zero_(), None),
    ],
)
def test_what_a_loop_leaves_of_a_gradient_is_told_from_one_that_it_cleared(
    change: Callable[[Tensor], Tensor], left: float | None
) -> None:
    net = Net()
    optimizer = sgd(net)
    with Probe(net, optimizer) as probe:
        net(INPUTS).square().mean().backward()
        for parameter in net.parameters():
            assert parameter.grad is not None
            change(parameter.grad)
        optimizer.step()
    told = cells(probe.to_frame("wiring"), "first.weight")["gradient_left"]
    assert pd.isna(told) if left is None else told == left


@pytest.mark.parametrize(
    ("factor", "word"), [(0.0, "zero"), (float("inf"), "not_finite"), (1.0, "finite")]
)
def test_the_gradient_is_named(factor: float, word: str) -> None:
    net = Net()
    net.within = lambda x: x * factor
    frame, _ = trained(net, sgd(net))
    assert cells(frame, "first.weight")["gradient"] == word


def clearing(net: nn.Module, how: str) -> Callable[[int], None]:
    def clear(_: int) -> None:
        if how == "kept":
            return
        net.zero_grad(set_to_none=how == "none")

    return clear


@pytest.mark.parametrize("every", [1, 20])
@pytest.mark.parametrize("how", ["none", "zeros", "kept"])
@pytest.mark.parametrize("clips", [False, True])
def test_gradients_that_are_never_cleared_are_found_at_the_second_update(
    how: str, every: int, clips: bool
) -> None:
    net = Net()
    optimizer = sgd(net)
    if clips:
        optimizer.register_step_pre_hook(
            lambda *_: nn.utils.clip_grad_value_(net.parameters(), 1e-3)
        )
    frame, _ = trained(net, optimizer, 3, clear=clearing(net, how), every=every)
    kept = frame[frame["gradient_kept"] == 1]
    if how != "kept":
        assert len(kept) == 0
        return
    assert list(kept["step"]) == [1, 1, 1]
    assert set(kept["name"]) == {"first.weight", "first.bias", "second.weight"}
    assert len(frame) == 6


def test_a_row_follows_where_something_changes() -> None:
    net = Net()
    optimizer = sgd(net)

    def thaw(step: int) -> None:
        optimizer.zero_grad()
        net.first.weight.requires_grad_(step >= 2)
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1) if step < 4 else 0.0

    frame, _ = trained(net, optimizer, 6, clear=thaw, every=1)
    of_first = frame[frame["name"] == "first.weight"]
    assert list(of_first["step"]) == [0, 2, 4]
    assert list(of_first["requires_grad"]) == [0, 1, 1]
    assert list(of_first["updated"]) == [0, 1, 0]
    assert list(of_first["lr"]) == [0.1, 0.1 / 3, 0.0]
    assert list(frame.loc[frame["name"] == "second.weight", "step"]) == [0, 4]


def test_a_closure_is_measured_as_it_ran() -> None:
    net = Net()
    torch.manual_seed(0)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(INPUTS).square().mean()
        loss.backward()
        return loss

    with Probe(net, optimizer) as probe:
        optimizer.step(closure)
    row = cells(probe.to_frame("wiring"), "first.weight")
    assert (row["gradient_came"], row["gradient"], row["updated"]) == (1, "finite", 1)


def test_weights_that_a_pattern_leaves_out_are_listed_as_far_as_is_known() -> None:
    net = Net()
    optimizer = sgd(net)
    with Probe(net, optimizer, layers="second") as probe:
        net(INPUTS).square().mean().backward()
        optimizer.step()
    row = cells(probe.to_frame("wiring"), "first.weight")
    assert (row["requires_grad"], row["in_optimizer"], row["gradient_came"]) == (1, 1, 1)
    assert pd.isna(row["gradient"])
    assert pd.isna(row["updated"])


def test_training_is_the_same_to_the_bit() -> None:
    def weights(**probe: int) -> list[Tensor]:
        net = Net()
        optimizer = sgd(net)
        if probe:
            trained(net, optimizer, 5, **probe)
        else:
            for _ in range(5):
                optimizer.zero_grad()
                net(INPUTS).square().mean().backward()
                optimizer.step()
        return list(net.parameters())

    torch.manual_seed(0)
    bare = weights()
    torch.manual_seed(0)
    measured = weights(every=1)
    assert all(torch.equal(one, other) for one, other in zip(bare, measured, strict=True))


def test_a_weight_that_another_optimizer_trains_says_so_once_that_has_made_a_step() -> None:
    net = Net()
    ours, theirs = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (net.first, net.second))
    with Probe(net, ours, every=1) as probe:
        for _ in range(2):
            net.zero_grad()
            net(INPUTS).square().mean().backward()
            ours.step()
            theirs.step()
    frame = probe.to_frame("wiring")
    found = {
        name: frame.loc[frame["name"] == name, "other_optimizer"].tolist()
        for name in ("first.weight", "second.weight")
    }
    assert found == {"first.weight": [0], "second.weight": [0, 1]}
    net.second.weight.grad = torch.ones(3, 3)
    theirs.step()  # nothing of the probe is left
    assert probe.to_frame("wiring").equals(frame)


@pytest.mark.parametrize("clears_late", [False, True])
def test_a_gradient_of_another_networks_pass_that_is_cleared_is_not_kept(clears_late: bool) -> None:
    """As that of a discriminator, through which the generator's pass goes."""
    net = Net()
    optimizer = sgd(net)
    with Probe(net, optimizer) as probe:
        for _ in range(3):
            if not clears_late:
                optimizer.zero_grad()
            net(-INPUTS).mean().backward()  # the other network's
            if clears_late:
                optimizer.zero_grad()
            net(INPUTS).square().mean().backward()
            optimizer.step()
    assert not (probe.to_frame("wiring")["gradient_kept"] == 1).any()


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("has_own_pass", [True, False])
@pytest.mark.parametrize("clips", [False, True])
def test_optimizers_that_take_turns_have_a_backward_pass_each(
    ours_first: bool, has_own_pass: bool, clips: bool
) -> None:
    one, two = nn.Linear(3, 3), nn.Linear(3, 1)
    ours, theirs = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (one, two))

    def make_ours() -> None:
        if has_own_pass:
            ours.zero_grad()
            two(one(INPUTS)).mean().backward()
        clip(one)
        ours.step()

    def make_theirs() -> None:
        if has_own_pass:
            theirs.zero_grad()
            two(one(INPUTS).detach()).square().mean().backward()
        clip(two)
        theirs.step()

    def clip(part: nn.Module) -> None:
        if clips:  # which writes into gradients, and is no backward pass
            nn.utils.clip_grad_norm_(part.parameters(), 1e-3)

    with Probe(one, ours) as probe:
        for _ in range(3):
            if not has_own_pass:
                one.zero_grad(), two.zero_grad()
                two(one(INPUTS)).square().mean().backward()
            for make in (make_ours, make_theirs) if ours_first else (make_theirs, make_ours):
                make()
    assert probe._optimizer.takes_turns == has_own_pass
    assert not any(p._post_accumulate_grad_hooks for p in (*one.parameters(), *two.parameters()))


class Late(nn.Module):
    """Makes its second layer in a forward pass, after the optimizer has taken the parameters."""

    def __init__(self, first_with: int) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second: nn.Linear | None = None
        self._calls_left = first_with

    def forward(self, x: Tensor) -> Tensor:
        self._calls_left -= 1
        if self._calls_left < 0 and self.second is None:
            self.second = nn.Linear(3, 1)
        y = torch.tanh(self.first(x))
        return y if self.second is None else self.second(y)


@pytest.mark.parametrize("first_with", [0, 2])
def test_parameters_that_a_forward_pass_makes_are_not_in_the_optimizer(first_with: int) -> None:
    net = Late(first_with)
    frame, _ = trained(net, sgd(net), 4, every=1)
    row = cells(frame, "second.weight", first_with)
    assert (row["requires_grad"], row["in_optimizer"], row["gradient_came"]) == (1, 0, 1)
    assert row["updated"] == 0
    assert {*frame["name"]} == {"first.weight", "first.bias", "second.weight", "second.bias"}
