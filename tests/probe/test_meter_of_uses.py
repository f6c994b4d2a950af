"""`time.csv` of recurrences that are written by hand, against autograd.

Holds: probe/meters/uses.py, probe/meters/__init__.py
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vgexp
from vgexp.probe import Probe
from vgexp.probe.meters import uses

B, T, READ, H = 3, 6, 2, 4


class ByHand(nn.Module):
    """A recurrence of some kind over [B, T, READ]; `seen` are the tensors whose gradients are asked
    for, by name and time."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.read, self.head = nn.Linear(READ, H), nn.Linear(H, 1)
        self.own = nn.Parameter(torch.randn(H, H) / 2)
        self.decay = nn.Parameter(torch.rand(H))
        self.again = nn.Linear(H, H)
        self.rnn, self.lstm = nn.RNNCell(READ, H), nn.LSTMCell(READ, H)
        self.gru = nn.GRU(READ, H, num_layers=2, batch_first=True)
        self.seen: list[tuple[str, int, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen = []
        h = c = x.new_zeros(len(x), H)
        states: Tensor | None = None
        total = x.new_zeros(len(x), 1)
        for t, value in enumerate(x.unbind(1)):
            made: dict[str, Tensor] = {}
            if self.kind == "rnn":
                h = made["rnn.h"] = self.rnn(value, h)
            elif self.kind == "lstm":
                h, c = made["lstm.h"], made["lstm.c"] = self.lstm(value, (h, c))
            elif self.kind == "gru":
                y, states = self.gru(value.unsqueeze(1), states)
                h = made["gru.h"] = y[:, -1]
            else:
                z = self.multiply(h)
                made[NAMES[self.kind]] = z
                h = torch.tanh(z + self.read(value))
            self.seen += [(name, t, one) for name, one in made.items()]
            total = total + torch.sin(self.head(h))
        return total

    def multiply(self, h: Tensor) -> Tensor:
        weight = self.own
        products: dict[str, Callable[[], Tensor]] = {
            "matmul": lambda: h @ weight.T,
            "function": lambda: F.linear(h, weight),
            "sum": lambda: torch.einsum("bi,oi->bo", h, weight),
            "entries": lambda: h * self.decay,
            "module": lambda: self.again(h),
            "module's": lambda: F.linear(h, self.again.weight, self.again.bias),
        }
        return products[self.kind]()


NAMES = {"matmul": "own.z", "function": "own.z", "sum": "own.z", "entries": "decay.z"}
NAMES |= {"module": "again.z", "module's": "again.z"}


def trained(
    net: nn.Module, *losses: Callable[[], Tensor], **more: int
) -> tuple[pd.DataFrame, Probe]:
    """The rows of one update after the backward passes of some losses."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer, **more) as probe:
        for loss in losses:
            loss().backward()
        optimizer.step()
    return (probe.to_frame("time") if "time" in probe.tables else pd.DataFrame()), probe


def expected(net: ByHand, x: Tensor) -> dict[tuple[str, int], float]:
    """N times the rms of dL/ds, by autograd."""
    loss = net(x).square().mean()
    wanted = [one for *_, one in net.seen]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    zero = torch.zeros(1)
    return {
        (name, t): len(x) * float((zero if g is None else g).square().mean().sqrt())
        for (name, t, _), g in zip(net.seen, found, strict=True)
    }


@pytest.mark.parametrize("kind", ["rnn", "lstm", *NAMES])
def test_each_use_has_the_gradient_that_autograd_gives(kind: str) -> None:
    torch.manual_seed(1)
    net, x = ByHand(kind).double(), torch.randn(B, T, READ, dtype=torch.float64)
    wanted = expected(net, x)
    rows, _ = trained(net, lambda: net(x).square().mean())
    found = rows.set_index(["name", "t"])["delta_rms"]
    assert {key: pytest.approx(value, rel=1e-12) for key, value in wanted.items()} == {**found}
    assert rows["state_rms"].iloc[-1] > 0


def test_a_net_that_is_given_one_step_at_a_time_is_measured_by_its_last_layer() -> None:
    torch.manual_seed(1)
    net, x = ByHand("gru").double(), torch.randn(B, T, READ, dtype=torch.float64)
    whole = copy.deepcopy(net)
    rows, _ = trained(net, lambda: net(x).square().mean())
    found = rows[rows["name"] == "gru.h"].set_index("t")["delta_rms"]

    class AtOnce(nn.Module):
        """The same loop as one call: torch's own meter is tested against equations."""

        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = whole.gru, whole.head

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(self.head(self.gru(x)[0])).sum(1)

    at_once = AtOnce()
    by_torch, _ = trained(at_once, lambda: at_once(x).square().mean())
    last = by_torch[by_torch["name"] == "gru.l1.h"].set_index("t")["delta_rms"]
    assert {**found} == {t: pytest.approx(value, rel=1e-12) for t, value in last.items()}


def test_micro_batches_are_taken_together() -> None:
    torch.manual_seed(1)
    net, x = ByHand("matmul").double(), torch.randn(2 * B, T, READ, dtype=torch.float64)
    wanted = expected(net, x)
    parts = [partial_loss(net, part) for part in x.split(B)]
    rows, _ = trained(net, *parts)
    found = rows.set_index(["name", "t"])["delta_rms"]
    assert {key: pytest.approx(value, rel=1e-12) for key, value in wanted.items()} == {**found}


def partial_loss(net: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: net(x).square().mean() / 2


class OneStep(nn.Module):
    """One step in time, which a loop calls."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(READ, H), nn.Linear(H, 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return self.head(h), h


def test_a_model_may_be_one_step_that_a_loop_calls() -> None:
    torch.manual_seed(1)
    net, x = OneStep().double(), torch.randn(B, T, READ, dtype=torch.float64)
    states: list[Tensor] = []

    def loss() -> Tensor:
        h, total = x.new_zeros(B, H), x.new_zeros(())
        states.clear()
        for value in x.unbind(1):
            y, h = net(value, h)
            states.append(h)
            total = total + y.square().mean()
        return total

    gradients = torch.autograd.grad(loss(), states)
    wanted = [float(g.square().mean().sqrt()) for g in gradients]
    rows, _ = trained(net, loss)
    assert {*rows["name"]} == {"cell.h"}
    assert [*rows["t"]] == [*range(T)]
    ratios = rows["delta_rms"] / rows["delta_rms"].iloc[-1]
    assert [*ratios] == pytest.approx([one / wanted[-1] for one in wanted], rel=1e-12)


class Twins(nn.Module):
    """One encoder for several inputs side by side, and none reads another's output."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.own = nn.Linear(READ, H), nn.Parameter(torch.randn(H, H))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.encoder(value) @ self.own for value in x.unbind(1)]).sum(0)


def test_uses_side_by_side_are_no_steps_in_time() -> None:
    net, x = Twins(), torch.randn(B, 12, READ)
    rows, probe = trained(net, lambda: net(x).square().mean())
    assert rows.empty
    assert "time" not in probe.tables
    assert not any("raised" in line for line in probe.unseen)


def test_a_state_that_is_cut_begins_anew() -> None:
    net = ByHand("module").double()
    x = torch.randn(B, 2 * uses.LEAST_USES, READ, dtype=torch.float64)

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.read = net.again, net.read

        def forward(self, x: Tensor) -> Tensor:
            h, total = x.new_zeros(B, H), x.new_zeros(())
            for t, value in enumerate(x.unbind(1)):
                h = h.detach() if t == uses.LEAST_USES else h
                h = torch.tanh(self.again(h) + self.read(value))
                total = total + h.sum()
            return total

    cut = Cut()
    rows, _ = trained(cut, lambda: cut(x))
    assert [*rows["t"]] == [*range(uses.LEAST_USES)]


def test_few_of_many_uses_are_kept() -> None:
    net, x = ByHand("matmul").double(), torch.randn(B, 300, READ, dtype=torch.float64)
    wanted = expected(net, x)
    rows, _ = trained(net, lambda: net(x).square().mean())
    assert len(rows) <= uses.MOST_KEPT
    assert [rows["t"].iloc[0], rows["t"].iloc[-1]] == [0, 299]
    assert len(set(rows["t"].diff().iloc[1:-1])) == 1
    found = rows.set_index(["name", "t"])["delta_rms"]
    assert all(found[key] == pytest.approx(wanted[key], rel=1e-12) for key in found.index)


def test_a_second_backward_pass_through_the_same_uses_is_told() -> None:
    net, x = ByHand("matmul"), torch.randn(B, T, READ)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer) as probe:
        loss = net(x).square().mean()
        loss.backward(retain_graph=True)
        loss.backward()
        optimizer.step()
    assert probe.to_frame("time").empty
    assert any(line.startswith("time.csv of own: gradients of one call") for line in probe.unseen)


def test_later_updates_are_measured_and_a_sudden_growth_at_once() -> None:
    net, x = ByHand("module"), torch.randn(B, T, READ)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    with Probe(net, optimizer) as probe:
        for step in range(22):
            optimizer.zero_grad()
            (net(x).square().mean() * (100 if step == 7 else 1)).backward()
            optimizer.step()
    assert sorted({*probe.to_frame("time")["step"]}) == [0, 8, 20]


@pytest.mark.parametrize(("factor", "cause"), [(3.0, "exploding"), (0.02, "vanishing")])
def test_a_recurrence_by_hand_that_does_not_learn_is_told(factor: float, cause: str) -> None:
    torch.manual_seed(0)

    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Parameter(factor * torch.eye(H))
            self.read, self.head = nn.Linear(1, H), nn.Linear(H, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), H)
            for value in x.unbind(1):
                h = h @ self.own + self.read(value)
            return self.head(h)

    net = Filter()
    optimizer, loss_fn = torch.optim.SGD(net.parameters(), lr=1e-3), nn.BCEWithLogitsLoss()
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(loss_fn)
        for _ in range(101):
            x = torch.randn(16, 20, 1)
            optimizer.zero_grad()
            watched(net(x), (x[:, 0] > 0).float()).backward()
            optimizer.step()
    assert probe.diagnose().cause == f"recurrence_{cause}"


def test_of_passes_without_a_backward_pass_few_graphs_are_kept() -> None:
    """As those of a policy that is asked with gradients, and whose answers are drawn from."""
    torch.manual_seed(0)
    net = ByHand("matmul")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with vgexp.Probe(net, optimizer, every=1, activations_every=1):
        for step in range(2):
            tags = [graph_of(net) for _ in range(9)]
            # In the first update all is looked at, and all is kept.
            assert step == 0 or sum(tag() is not None for tag in tags) <= 2
            net(torch.randn(B, T, READ)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()


class Tag:
    """Lives as long as the graph that has a hook of it."""

    def see(self, _: Tensor) -> None: ...


def graph_of(net: ByHand) -> weakref.ref[Tag]:
    tag = Tag()
    net(torch.randn(B, T, READ))
    net.seen[0][2].register_hook(tag.see)
    net.seen = []
    return weakref.ref(tag)


class Dropped(nn.GRU):
    """A recurrent net of which the weight in time is made at each call of another parameter."""

    def __init__(self) -> None:
        super().__init__(READ, H, batch_first=True)
        self.raw = nn.Parameter(self.weight_hh_l0.detach())
        del self.weight_hh_l0

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        states = given[1] if len(given) > 1 else torch.zeros(1, len(given[0]), H)
        weights = [self.weight_ih_l0, F.dropout(self.raw, 0.1), self.bias_ih_l0, self.bias_hh_l0]
        y, last = torch.gru(given[0], states, weights, True, 1, 0.0, self.training, False, True)
        return y, last


class Stepwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = Dropped()

    def forward(self, x: Tensor) -> Tensor:
        states: list[Tensor] = []
        for one in x.split(1, 1):
            y, last = self.rnn(one, *states)
            states = [last]
        return y


def test_a_recurrent_net_without_its_own_weight_in_time_is_no_error() -> None:
    torch.manual_seed(0)
    net = Stepwise()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer, every=1, activations_every=1) as probe:
        net(torch.randn(B, T, READ)).sum().backward()
        optimizer.step()
    frame = probe.to_frame("time")
    assert [*frame.loc[frame["name"] == "rnn.h", "t"]] == [*range(T)]
