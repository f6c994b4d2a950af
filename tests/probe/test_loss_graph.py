"""What autograd's graph says of a loss.

Holds: probe/loss_graph.py
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from vgexp.probe import Probe, loss_graph
from vgexp.probe.loss_graph import NOTHING, graph_of

LABELS = torch.tensor([0, 1, 2, 0])
COLUMN = torch.tensor([[0.5], [-1.0], [2.0], [0.1]])
ROW = COLUMN[:, 0]
BINARY = (COLUMN > 0).float()


def outputs(num: int) -> Tensor:
    """Those of a linear layer."""
    torch.manual_seed(0)
    return nn.Linear(3, num)(torch.randn(4, 3))


def twice(loss: Tensor) -> tuple[str, ...] | None:
    found = graph_of(loss).squashed_twice
    return None if found is None else tuple(x.partition("Backward")[0] for x in found.split(" "))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda o: F.cross_entropy(o.softmax(1), LABELS), ("Softmax", "LogSoftmax")),
        (lambda o: F.cross_entropy(o.softmax(0), LABELS), ("Softmax", "LogSoftmax")),
        (lambda o: F.cross_entropy(o.sigmoid(), LABELS), ("Sigmoid", "LogSoftmax")),
        (lambda o: F.nll_loss(o.softmax(1), LABELS), ("Softmax", "NllLoss")),
        # Of tokens, whose classes come last, and with what leaves entries as they are.
        (
            lambda o: F.cross_entropy(o.view(2, 2, 3).softmax(-1).flatten(0, 1) + 1e-6, LABELS),
            ("Softmax", "LogSoftmax"),
        ),
        # Of two heads that are joined and split again.
        (
            lambda o: F.cross_entropy(
                torch.cat((o.softmax(1), o.softmax(1)), 1).split([3, 3], 1)[0], LABELS
            ),
            ("Softmax", "LogSoftmax"),
        ),
        (lambda o: F.cross_entropy(torch.cat((o.softmax(1), o), 1)[:, :3], LABELS), None),
        (lambda o: F.cross_entropy(o, LABELS), None),
        (lambda o: F.cross_entropy(o.log_softmax(1), LABELS), None),
        (lambda o: F.nll_loss((o.softmax(1) + 1e-8).log(), LABELS), None),
        # Attention ahead of the read-out is no output.
        (lambda o: F.cross_entropy(o.softmax(1) @ torch.ones(3, 3), LABELS), None),
        (lambda o: F.cross_entropy(10 * o.sigmoid(), LABELS), None),
    ],
)
def test_probabilities_that_are_taken_for_logits_are_found(
    loss: Callable[[Tensor], Tensor], expected: tuple[str, ...] | None
) -> None:
    assert twice(loss(outputs(3))) == expected


def test_a_sigmoid_in_front_of_one_with_logits_is_found() -> None:
    o = outputs(1)
    found = twice(F.binary_cross_entropy_with_logits(o.sigmoid(), BINARY))
    assert found == ("Sigmoid", "BinaryCrossEntropyWithLogits")
    assert twice(F.binary_cross_entropy_with_logits(o, BINARY)) is None
    assert twice(F.binary_cross_entropy(o.sigmoid(), BINARY)) is None


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda o: (o - ROW).square().mean(), "4x4"),
        (lambda o: (ROW - o).abs().sum(), "4x4"),
        (lambda o: F.smooth_l1_loss(o.squeeze(), COLUMN), "4x4"),
        (lambda o: F.l1_loss(o, ROW), "4x4"),
        (lambda o: F.mse_loss(o, ROW).sqrt(), "4x4"),
        (lambda o: (o - COLUMN).square().mean(), None),
        (lambda o: F.l1_loss(o[:, 0], ROW), None),
        # All outputs with each other, by intent; and a mask over pairs.
        (lambda o: (o - o.T).square().mean(), None),
        (lambda o: (o.exp() * torch.eye(4)).sum(), None),
        (lambda o: (o - o.mean()).square().mean(), None),
    ],
)
def test_a_difference_of_all_with_all_is_found(
    loss: Callable[[Tensor], Tensor], expected: str | None
) -> None:
    assert graph_of(loss(outputs(1))).broadcast_to == expected


MAPS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda o: F.smooth_l1_loss(o, MAPS), "4x4x3"),
        (lambda o: (o - MAPS).square().mean(), "4x4x3"),
        (lambda o: F.mse_loss(MAPS, o), "4x4x3"),
        (lambda o: (o - MAPS.unsqueeze(1)).square().mean(), None),
        # All pairs, by intent: the loss function brings the output to another shape.
        (lambda o: (o.view(4, 1, 3) - MAPS).square().mean(), None),
        (lambda o: (o[:, 0, None] - MAPS).abs().mean(), None),
    ],
)
def test_an_output_as_it_was_given_may_be_broadcast_to_any_shape(
    loss: Callable[[Tensor], Tensor], expected: str | None
) -> None:
    o = outputs(3).unsqueeze(1)
    assert graph_of(loss(o), outputs=[o]).broadcast_to == expected


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda o: F.nll_loss(o, LABELS), "NllLossBackward0"),
        (lambda o: F.nll_loss((o / 2 + 1).relu(), LABELS), "NllLossBackward0"),
        (lambda o: F.cross_entropy(o, LABELS), "LogSoftmaxBackward0"),
        (lambda o: F.cross_entropy(o.softmax(1), LABELS), None),
        (lambda o: F.nll_loss(o - o.logsumexp(1, keepdim=True), LABELS), None),
        (lambda o: F.nll_loss((o.softmax(1) + 1e-8).log(), LABELS), None),
        (lambda o: F.nll_loss(F.logsigmoid(o), LABELS), None),
        (lambda o: o.square().mean(), None),
    ],
)
def test_it_is_known_what_reads_what_weights_give(
    loss: Callable[[Tensor], Tensor], expected: str | None
) -> None:
    assert graph_of(loss(outputs(3))).reads_scores == expected


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda o: F.binary_cross_entropy_with_logits(o, 2 * BINARY - 1), (-1.0, 1.0)),
        (lambda o: F.binary_cross_entropy_with_logits(o, BINARY + 1).sqrt(), (1.0, 2.0)),
        (lambda o: F.binary_cross_entropy(o.sigmoid(), BINARY), (0.0, 1.0)),
        (lambda o: F.mse_loss(o, 2 * BINARY - 1), (None, None)),
    ],
)
def test_the_targets_of_a_binary_cross_entropy_are_those_that_it_saved(
    loss: Callable[[Tensor], Tensor], expected: tuple[float | None, ...]
) -> None:
    found = graph_of(loss(outputs(1)))
    assert (found.share_min, found.share_max) == expected


def test_the_functions_that_give_a_loss_are_named() -> None:
    logs = outputs(3).log_softmax(1)[:, None]
    times, lengths = torch.tensor([4]), torch.tensor([2])
    found = graph_of(F.ctc_loss(logs, torch.tensor([[1, 2]]), times, lengths)).functions
    assert found is not None
    assert found.split() == ["CtcLossBackward0", "LogSoftmaxBackward0"]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda o: F.binary_cross_entropy((o + 100).sigmoid(), BINARY), 1.0),
        (lambda o: (o + torch.tensor([[0.0], [0], [50], [50]])).tanh().mean(), 0.5),
        (lambda o: -F.softplus(o - 50).mean(), 1.0),
        (lambda o: -F.logsigmoid(o - 50).mean(), 0.0),
        (lambda o: F.logsigmoid(o + 50).mean(), 1.0),
        # A cross-entropy is flat where it is right; one that is to grow, where it is lost.
        (lambda o: F.binary_cross_entropy_with_logits(o - 50, BINARY * 0), None),
        (lambda o: -F.binary_cross_entropy_with_logits(o - 50, BINARY * 0), 1.0),
        (lambda o: -F.binary_cross_entropy_with_logits(o + 50, BINARY * 0), 0.0),
        # Where one way back is steep, the loss is not flat.
        (lambda o: (o + 100).sigmoid().mean() + o.sigmoid().mean(), 0.0),
        (lambda o: o.square().mean(), None),
        # One ahead of weights is the model's own.
        (lambda o: nn.Linear(1, 1)((o + 100).sigmoid()).mean(), None),
    ],
)
def test_the_share_at_which_an_activation_is_flat_is_that_of_its_slope(
    loss: Callable[[Tensor], Tensor], expected: float | None
) -> None:
    assert graph_of(loss(outputs(1))).flat_fraction == expected


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda o: F.mse_loss(o, COLUMN), True),
        (lambda o: 0.1 * (o[:, 0] + COLUMN.sin()).square().mean() + o.abs().sum(), True),
        # One ahead of weights is the model's own.
        (lambda o: nn.Linear(1, 1)(o.sigmoid()).square().mean(), True),
        (lambda o: F.mse_loss(o.sigmoid(), COLUMN), False),
        (lambda o: (1 - o).relu().mean(), False),
        (lambda o: F.cross_entropy(o, COLUMN), False),
        (lambda o: o.clamp(0, 1).square().mean(), False),
    ],
)
def test_a_loss_is_steep_where_nothing_between_it_and_weights_has_a_flat_end(
    loss: Callable[[Tensor], Tensor], expected: bool
) -> None:
    assert graph_of(loss(outputs(1))).is_steep is expected


def test_a_loss_without_a_graph_says_nothing() -> None:
    assert graph_of(torch.tensor(1.0)) == NOTHING


def test_the_table_of_a_probe_says_it_of_the_loss_alone() -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def of_softmax(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output.softmax(1), y)

    with Probe(model, optimizer) as probe:
        loss = probe.watch_loss(of_softmax)
        loss(model(torch.ones(4, 3)), LABELS).backward()
        optimizer.step()
    frame = probe.to_frame("loss").set_index("role")
    assert frame["squashed_twice"].isna().tolist() == [True, True, False]
    assert frame.loc["loss", "squashed_twice"] == "SoftmaxBackward0 LogSoftmaxBackward0"
    assert frame[["broadcast_to", "flat_fraction", "share_min"]].isna().all(axis=None)


class Recomputed(nn.Module):
    """Its last block is computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.last = nn.Sequential(nn.Linear(8, 1), nn.BatchNorm1d(1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.last, torch.relu(self.first(x)), use_reentrant=False)


def test_a_loss_behind_a_checkpointed_segment_is_read_without_running_it_again() -> None:
    found = []
    for is_probed in (False, True):
        torch.manual_seed(0)
        model, loss_of = Recomputed(), nn.MSELoss()
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        probe = Probe(model, optimizer)
        with probe if is_probed else nullcontext():
            see = probe.watch_loss(loss_of) if is_probed else loss_of
            for target in (1.0, torch.nan):  # a loss that is not finite is read at any step
                x = torch.randn(16, 8)
                see(model(x), torch.full((16, 1), target)).backward()
                optimizer.step()
                optimizer.zero_grad()
        found.append([*model.last[1].buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("most", [1, 7, 2**18])
def test_the_flat_share_of_large_outputs_is_counted_in_parts(
    dtype: torch.dtype, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_graph, "_MOST_ENTRIES", most)
    x = torch.linspace(-12, 12, 40).to(dtype).view(8, 5).requires_grad_()
    for phi, slope in (
        (torch.sigmoid, lambda y: 4 * y * (1 - y)),
        (torch.tanh, lambda y: 1 - y.square()),
    ):
        flat = float((slope(phi(x.detach()).double()) < 1e-3).double().mean())
        assert graph_of(phi(x).sum()).flat_fraction == flat
        assert 0 < flat < 1
    flat = float((x.detach().double().sigmoid() < 1e-3).double().mean())
    assert graph_of(F.softplus(x).sum()).flat_fraction == flat


class LargestMade(TorchDispatchMode):
    """The most entries of a tensor that an operation made, with memory of its own."""

    num_entries = 0

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        read = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in read:
            self.num_entries = max(self.num_entries, made.numel())
        return made


def test_no_copy_of_large_outputs_is_made() -> None:
    y = torch.sigmoid(torch.randn(2**10, 2**10, requires_grad=True)).sum()
    with LargestMade() as largest:
        assert graph_of(y).flat_fraction == 0
    assert 0 < largest.num_entries <= loss_graph._MOST_ENTRIES
