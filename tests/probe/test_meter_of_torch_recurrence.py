"""`time.csv` of anybody's recurrent net, against autograd through a loop over time.

Holds: probe/meters/__init__.py, probe/meters/recurrence.py, probe/meters/passes.py,
probe/meters/recurrent_calls.py, probe/meters/redrawn.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import vgexp
from vgexp import diagnose
from vgexp.probe import Probe
from vgexp.probe.meters import recurrence, recurrent_calls

B, T, READ, H = 3, 7, 2, 4
KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Net(nn.Module):
    """Answers by the outputs at some times, and where asked by the last states."""

    def __init__(self, rnn: nn.RNNBase, *, by_last: bool = False, lengths: Any = None) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(1, 1).to(rnn.all_weights[0][0].dtype)
        self.by_last, self.lengths = by_last, lengths

    def forward(self, x: Tensor) -> Tensor:
        given: Any = x
        if self.lengths is not None:
            given = pack_padded_sequence(x, self.lengths, batch_first=True, enforce_sorted=False)
        y, last = self.rnn(given)
        if self.lengths is not None:
            y, _ = pad_packed_sequence(y, batch_first=True)
        total = torch.sin(y).sum()
        if self.by_last:
            ends = last if isinstance(last, tuple) else (last,)
            total = total + sum((i + 2) * torch.cos(end).sum() for i, end in enumerate(ends))
        return self.head(total.view(1, 1))


def measured(net: Net, x: Tensor, **more: Any) -> tuple[pd.DataFrame, Probe]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer, **more) as probe:
        net(x).sum().backward()
        optimizer.step()
    return probe.to_frame("time"), probe


def step_of(rnn: nn.RNNBase, place: int) -> Callable[..., tuple[Tensor, ...]]:
    """The equations of a cell, as torch documents them."""
    w, u, b, c = rnn.all_weights[place]

    def lstm(x: Tensor, h: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        i, f, g, o = (x @ w.T + b + h @ u.T + c).chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def gru(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        (r, z, n), (rr, zz, nn_) = (x @ w.T + b).chunk(3, 1), (h @ u.T + c).chunk(3, 1)
        z = (z + zz).sigmoid()
        return ((1 - z) * (n + (r + rr).sigmoid() * nn_).tanh() + z * h,)

    def plain(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        return ((x @ w.T + b + h @ u.T + c).tanh(),)

    return {"LSTM": lstm, "GRU": gru, "RNN_TANH": plain}[rnn.mode]


def expected(
    net: Net, x_BTI: Tensor, num_examples: int, masks: Sequence[Tensor] = ()
) -> dict[tuple[str, int], Any]:
    """(layer and direction with the state, t) -> delta_rms and state_rms, by a loop.

    dL/ds_t is the total derivative: a number is added to each state as it is handed on.

    Args:
        masks: what each layer's outputs are multiplied by before the next, [T, B, H].
    """
    rnn, steps = net.rnn, x_BTI.shape[1]
    lengths = net.lengths or [steps] * len(x_BTI)
    added: dict[tuple[str, int], list[Tensor]] = {}
    states: dict[tuple[str, int], Tensor] = {}
    inputs, ends = [x_BTI[:, t] for t in range(steps)], []
    for layer in range(rnn.num_layers):
        outputs = []
        for direction in range(2 if rnn.bidirectional else 1):
            advance = step_of(rnn, layer * (2 if rnn.bidirectional else 1) + direction)
            label = f"rnn.l{layer}" + "_reverse" * direction
            num_states = 2 if rnn.mode == "LSTM" else 1
            s = tuple(torch.zeros(len(x_BTI), H, dtype=x_BTI.dtype) for _ in range(num_states))
            own: dict[int, Tensor] = {}
            for t in reversed(range(steps)) if direction else range(steps):
                alive = torch.tensor([n > t for n in lengths])[:, None]
                new = advance(inputs[t], *s)
                handed = []
                for name, value, before in zip("hc", new, s, strict=False):
                    nudge = torch.zeros_like(value, requires_grad=True)
                    added.setdefault((f"{label}.{name}", t), []).append(nudge)
                    handed.append(torch.where(alive, value + nudge, before))
                    states[f"{label}.{name}", t] = handed[-1][alive[:, 0]]
                s = tuple(handed)
                own[t] = torch.where(alive, s[0], torch.zeros_like(s[0]))
            ends.append(s)
            outputs.append(own)
        inputs = [torch.cat([own[t] for own in outputs], 1) for t in range(steps)]
        if layer < len(masks):
            inputs = [x * mask for x, mask in zip(inputs, masks[layer], strict=True)]
    total = sum(torch.sin(y).sum() for y in inputs)
    if net.by_last:
        for i, each in enumerate(zip(*ends, strict=True)):
            total = total + sum((i + 2) * torch.cos(end).sum() for end in each)
    total = net.head(total.view(1, 1)).sum()
    if masks:
        torch.manual_seed(1)
        assert torch.allclose(net(x_BTI).sum(), total, rtol=1e-12)
    found = {}
    for (label, t), nudges in added.items():
        (gradient,) = torch.autograd.grad(
            total, nudges, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        alive = [n > t for n in lengths]
        rms = gradient[alive].square().mean().sqrt() * num_examples
        found[label, t] = float(rms), float(states[label, t].detach().square().mean().sqrt())
    return found


def assert_as_expected(frame: pd.DataFrame, wanted: dict[tuple[str, int], Any]) -> None:
    assert len(frame) > 0
    for row in frame.itertuples():
        delta, state = wanted[row.name, row.t]
        assert math.isclose(row.delta_rms, delta, rel_tol=1e-10), row
        assert math.isclose(row.state_rms, state, rel_tol=1e-10), row


@pytest.mark.parametrize("by_last", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_state_has_the_derivative_of_a_loop_over_time(
    kind: str, both: bool, layers: int, by_last: bool
) -> None:
    torch.manual_seed(0)
    rnn = KINDS[kind](READ, H, layers, batch_first=True, bidirectional=both).double()
    net = Net(rnn, by_last=by_last)
    x = torch.randn(B, T, READ, dtype=torch.float64)
    wanted = expected(net, x, B)
    frame, probe = measured(net, x)
    assert_as_expected(frame, wanted)
    labels = {name for name, _ in wanted}
    if kind == "lstm":
        # c_T is read by nothing that is above it.
        assert set(frame["name"]) == labels
    assert len(frame) == len(labels) * T
    assert frame["layer"].max() == layers
    assert not [line for line in probe.unseen if "time.csv" in line]


def test_time_may_come_first_and_ten_times_are_measured() -> None:
    torch.manual_seed(0)
    net = Net(nn.GRU(READ, H).double())
    x = torch.randn(23, B, READ, dtype=torch.float64)
    wanted = expected(net, x.transpose(0, 1), B)
    frame, _ = measured(net, x)
    assert_as_expected(frame, wanted)
    assert list(frame["t"]) == [k * 23 // 10 - 1 for k in range(1, 11)]


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_packed_sequences_are_measured_as_far_as_each_goes(kind: str) -> None:
    torch.manual_seed(0)
    lengths = [3, 7, 5]
    net = Net(KINDS[kind](READ, H, 2, batch_first=True).double(), lengths=lengths)
    net.by_last = kind == "rnn"
    x = torch.randn(B, T, READ, dtype=torch.float64)
    wanted = expected(net, x, B)
    frame, _ = measured(net, x)
    assert_as_expected(frame, wanted)
    assert len(frame) == len({name for name, _ in wanted}) * T


def test_the_reverse_direction_of_packed_sequences_is_listed() -> None:
    torch.manual_seed(0)
    rnn = nn.GRU(READ, H, 2, batch_first=True, bidirectional=True).double()
    net = Net(rnn, lengths=[3, 7, 5])
    x = torch.randn(B, T, READ, dtype=torch.float64)
    wanted = expected(net, x, B)
    frame, probe = measured(net, x)
    assert_as_expected(frame, wanted)
    assert set(frame["name"]) == {"rnn.l0.h", "rnn.l1.h"}
    assert f"rnn: {recurrent_calls.LENGTHS}" in probe.unseen


def test_micro_batches_add_up_and_passes_without_a_gradient_do_not_count() -> None:
    torch.manual_seed(0)
    net = Net(nn.LSTM(READ, H, batch_first=True).double())
    x = torch.randn(4, T, READ, dtype=torch.float64)
    whole, _ = measured(net, x)
    torch.manual_seed(0)
    net = Net(nn.LSTM(READ, H, batch_first=True).double())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer) as probe:
        net(x + 1)
        for part in x.split(1):
            net(part).sum().backward()
        optimizer.step()
    pd.testing.assert_frame_equal(whole, probe.to_frame("time"), rtol=1e-10)


def masks_of(net: Net, sizes: Sequence[int] | None = None) -> list[Tensor]:
    """The masks that the dropout between layers draws next, as torch draws them: of outputs
    [T, B, H], or of a packed sequence, whose examples at t are the first `sizes[t]`."""
    rnn, width = net.rnn, H * (2 if net.rnn.bidirectional else 1)
    torch.manual_seed(1)
    masks = []
    for _ in range(rnn.num_layers - 1):
        if sizes is None:
            masks.append(F.dropout(torch.ones(T, B, width, dtype=torch.float64), rnn.dropout))
            continue
        drawn = F.dropout(torch.ones(sum(sizes), width, dtype=torch.float64), rnn.dropout)
        masks.append(pad_sequence(drawn.split(list(sizes))))
    return masks if sizes is None else [mask.transpose(0, 1) for mask in masks]


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers_is_that_of_the_call(kind: str, both: bool) -> None:
    torch.manual_seed(0)
    rnn = KINDS[kind](READ, H, 3, batch_first=True, bidirectional=both, dropout=0.4).double()
    net = Net(rnn, by_last=True)
    x = torch.randn(B, T, READ, dtype=torch.float64)
    wanted = expected(net, x, B, masks_of(net))
    torch.manual_seed(1)
    frame, probe = measured(net, x)
    assert_as_expected(frame, wanted)
    assert len(frame) == len({name for name, _ in wanted}) * T
    assert not [line for line in probe.unseen if "time.csv" in line]


def test_dropout_of_packed_sequences_is_that_of_the_call() -> None:
    torch.manual_seed(0)
    # Longest first, so that packing leaves the order as it is.
    net = Net(nn.LSTM(READ, H, 2, batch_first=True, dropout=0.4).double(), lengths=[7, 5, 3])
    x = torch.randn(B, T, READ, dtype=torch.float64)
    wanted = expected(net, x, B, masks_of(net, sizes=[3, 3, 3, 2, 2, 1, 1]))
    torch.manual_seed(1)
    frame, _ = measured(net, x)
    assert_as_expected(frame, wanted)
    assert len(frame) == len({name for name, _ in wanted}) * T


def test_dropout_that_cannot_be_drawn_again_is_listed() -> None:
    net = Net(nn.LSTM(READ, H, 2, batch_first=True, dropout=0.5))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer) as probe:
        # Someone draws between the look at the generator and the dropout.
        net.rnn.register_forward_pre_hook(lambda *_: torch.rand(1) and None)
        net(torch.randn(B, T, READ)).sum().backward()
        optimizer.step()
    assert len(probe.to_frame("time")) == 0
    assert f"rnn: {recurrence.DROPOUT}" in probe.unseen


def test_nothing_is_dropped_in_evaluation_mode() -> None:
    net = Net(nn.LSTM(READ, H, 2, batch_first=True, dropout=0.5))
    net.eval()
    frame, _ = measured(net, torch.randn(B, T, READ))
    assert len(frame) == 4 * T


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_call_is_measured_once(reentrant: bool) -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=reentrant)

    torch.manual_seed(0)
    net = Checkpointed(nn.GRU(READ, H, batch_first=True).double())
    x = torch.randn(B, T, READ, dtype=torch.float64, requires_grad=True)
    wanted = expected(net, x.detach(), B)
    frame, _ = measured(net, x)
    assert_as_expected(frame, wanted)
    assert len(frame) == T


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_is_the_same_to_the_bit(dropout: float) -> None:
    def trained(measures: bool) -> list[Tensor]:
        torch.manual_seed(0)
        rnn = nn.LSTM(READ, H, 2, batch_first=True, bidirectional=True, dropout=dropout)
        net = Net(rnn, by_last=True)
        optimizer = torch.optim.Adam(net.parameters())
        probe = Probe(net, optimizer, every=1, activations_every=1)
        if measures:
            probe.__enter__()
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(B, T, READ)).sum().backward()
            optimizer.step()
        if measures:
            probe.__exit__(None, None, None)
            assert len(probe.to_frame("time")) == 3 * 8 * T
        return [*net.parameters(), torch.get_rng_state()]

    pairs = zip(trained(True), trained(False), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_spectral_norm_goes_on_by_the_steps_of_the_loop_alone() -> None:
    """Each time that its weight is read it goes on by one."""

    def trained(measures: bool) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.GRU(READ, H, batch_first=True), Last(), nn.Linear(H, H))
        spectral_norm(net[0], "weight_hh_l0")
        spectral_norm(net[2])
        optimizer = torch.optim.Adam(net.parameters())
        with vgexp.Probe(net, optimizer, every=1) if measures else nullcontext() as probe:
            for _ in range(3):
                optimizer.zero_grad()
                net(torch.randn(B, T, READ)).sum().backward()
                optimizer.step()
        assert probe is None or any("computed anew" in line for line in probe.unseen)
        return [*net.state_dict().values()]

    pairs = zip(trained(True), trained(False), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


class Last(nn.Module):
    def forward(self, given: tuple[Tensor, Tensor]) -> Tensor:
        return given[0][:, -1]


def test_layers_are_those_of_their_weights_and_one_known_signal_is_no_steady_one() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.lstm = nn.LSTM(6, 7, num_layers=2, batch_first=True)
            self.head = nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            states, _ = self.lstm(self.embed(x))
            return self.head(states[:, -1])  # type: ignore[no-any-return]

    model = Tagger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        model(torch.arange(45).view(5, 9) % 11).square().mean().backward()
        optimizer.step()
    layers = probe.to_frame().set_index("name")["layer"]
    time = probe.to_frame("time").drop_duplicates("name").set_index("name")["layer"]
    for name in ("l0", "l1"):
        assert time[f"lstm.{name}.h"] == layers[f"lstm.weight_ih_{name}"]
    found = diagnose(probe.to_frame())
    assert found.first is not None
    assert found.first.signal is None
    assert "of recurrent layers z is not known" in found.sentence
