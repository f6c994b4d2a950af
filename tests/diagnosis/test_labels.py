"""Labels that tell nothing: all of one class, or learned by heart while others are guessed.

Holds: diagnosis/rules/labels.py, probe/loss_evaluations.py
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vgexp
from vgexp.probe.loss_evaluations import share_right

K = 4
Label = Callable[[Tensor], Tensor]


def by_sign(x: Tensor) -> Tensor:
    return 2 * (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def by_chance(x: Tensor) -> Tensor:
    return torch.randint(K, (len(x),))


def trained(
    label: Label,
    *,
    num: int = 64,
    steps: int = 120,
    evaluates: bool = True,
    lr: float = 0.02,
    folder: Path | None = None,
) -> vgexp.Probe:
    """A classifier of a few examples, which is looked at with others every 20 steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 96), nn.ReLU(), nn.Linear(96, K))
    x, others = torch.randn(num, 8), torch.randn(400, 8)
    y, theirs = label(x), label(others)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    with vgexp.Probe(net, optimizer, folder=folder) as probe:
        watched = probe.watch_loss(nn.CrossEntropyLoss())
        for step in range(steps):
            optimizer.zero_grad()
            watched(net(x), y).backward()
            optimizer.step()
            if evaluates and step % 20 == 19:
                with torch.no_grad():
                    for part in (slice(0, 200), slice(200, 400)):
                        watched(net(others[part]), theirs[part])
    return probe


def test_evaluations_are_rows_of_their_own() -> None:
    probe = trained(by_sign)
    evals = probe.to_frame("evals")
    assert [*evals["step"]] == [20, 40, 60, 80, 100, 120]
    assert {*evals["split"]} == {"val"}
    assert len(probe.to_frame("steps")) == 120
    assert probe.to_frame("steps")["loss"].iloc[-1] < evals["loss"].iloc[-1] < 1.4
    assert "evals" not in trained(by_sign, evaluates=False, steps=2).tables


def test_an_evaluation_is_the_mean_over_its_calls() -> None:
    net = nn.Linear(3, 1)
    with vgexp.Probe(net, torch.optim.SGD(net.parameters(), lr=0.1)) as probe:
        watched = probe.watch_loss(nn.MSELoss())
        with torch.no_grad():
            values = [float(watched(net(torch.ones(2, 3)), torch.full((2, 1), y))) for y in (1, 5)]
    (row,) = probe.to_frame("evals").to_dict("records")
    assert (row["step"], row["loss"]) == (0, pytest.approx(sum(values) / 2))


@pytest.mark.parametrize(
    ("label", "evaluates", "cause"),
    [
        (by_chance, True, "labels_unlearnable"),
        (by_chance, False, None),  # nothing shows it
        (by_sign, True, None),
    ],
)
def test_what_is_learned_by_heart_shows_in_other_examples_alone(
    label: Label, evaluates: bool, cause: str | None
) -> None:
    found = trained(label, evaluates=evaluates).diagnose()
    assert found.cause == cause
    assert cause is None or "by heart" in found.findings[0].sentence


def test_a_network_that_is_sure_and_mostly_right_has_learned_more_than_its_examples() -> None:
    torch.manual_seed(0)
    x, slope = torch.randn(1100, 40), torch.randn(40)
    y = (x @ slope / 6 + 1.2 * torch.randn(1100) > 0).long()  # few are beyond doubt
    net = nn.Sequential(nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(nn.CrossEntropyLoss())
        for step in range(120):
            optimizer.zero_grad()
            watched(net(x[:100]), y[:100]).backward()
            optimizer.step()
            if step % 30 == 29:
                with torch.no_grad():
                    watched(net(x[100:]), y[100:])
    evals, steps = (probe.to_frame(name)["loss"] for name in ("evals", "steps"))
    assert evals.min() > 0.69 > 0.3 > steps.iloc[-1]  # by the losses alone nothing was learned
    assert probe.to_frame("evals")["accuracy"].min() > 0.6
    assert probe.diagnose().cause is None


def test_an_average_of_weights_that_has_hardly_moved_has_learned_nothing_by_heart() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, K))
    average = copy.deepcopy(net).requires_grad_(False)
    x = torch.randn(64, 8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(nn.CrossEntropyLoss())
        for step in range(100):
            optimizer.zero_grad()
            watched(net(x), by_sign(x)).backward()
            optimizer.step()
            with torch.no_grad():
                for mean, p in zip(average.parameters(), net.parameters(), strict=True):
                    mean.lerp_(p, 1e-4)
                if step % 20 == 19:
                    watched(average(x), by_sign(x))
    assert len(probe.to_frame("evals")) == 5
    assert probe.diagnose().cause is None


@pytest.mark.parametrize(
    ("function", "output", "target", "right"),
    [
        ("CrossEntropyLoss", [[0.0, 1.0], [3.0, 2.0], [1.0, 0.0]], [1, 1, -100], 0.5),
        ("cross_entropy", [[[0.0, 2.0], [1.0, 1.0]]], [[1, 1]], 0.5),  # [B, K, T]
        ("BCEWithLogitsLoss", [-1.0, 0.2, 3.0, 0.4], [0.0, 1.0, 1.0, 0.0], 0.75),
        ("BCELoss", [0.1, 0.2], [0.0, 1.0], 0.5),
        ("BCELoss", [0.1, 0.2], [0.5, 1.0], math.nan),  # no labels
        ("MSELoss", [0.1, 0.2], [0.0, 1.0], None),
        ("CrossEntropyLoss", [[0.0, 1.0]], [-100], math.nan),
    ],
)
def test_the_share_of_right_answers(
    function: str, output: object, target: object, right: float | None
) -> None:
    given = [("input", torch.tensor(output)), ("target", torch.tensor(target))]
    found = share_right(function, given)
    assert found is None if right is None else found == pytest.approx(right, nan_ok=True)


def test_a_run_folder_has_evaluations_and_says_the_same(tmp_path: Path) -> None:
    probe = trained(by_chance, folder=tmp_path / "run")
    run = vgexp.load(tmp_path / "run")
    assert run.evals["loss"].tolist() == probe.to_frame("evals")["loss"].tolist()
    assert run.summary["val_loss_best"] == run.evals["loss"].min()
    assert run.summary["cause_id"] == run.diagnose().cause == "labels_unlearnable"


@pytest.mark.parametrize("classes", [(0,), (2,), (0, 3)])
def test_labels_of_one_class_tell_nothing(classes: Sequence[int]) -> None:
    def label(x: Tensor) -> Tensor:
        return torch.tensor(classes)[torch.arange(len(x)) % len(classes)]

    found = trained(label, evaluates=False, lr=0.005).diagnose()
    assert (found.cause == "labels_unlearnable") is (len(classes) == 1)
    assert len(classes) > 1 or "All labels are" in found.findings[0].sentence


def scores(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.view(-1, 8)).view(16, 4)


def products(net: nn.Module, x: Tensor) -> Tensor:
    both = net(x)
    return torch.bmm(both, both[:, :1].mT)[:, :, 0]


@pytest.mark.parametrize(("of", "width"), [(scores, 1), (products, 4)])
def test_the_first_of_several_candidates_has_one_label_by_intent(
    of: Callable[[nn.Module, Tensor], Tensor], width: int
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, width))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(nn.CrossEntropyLoss())
        for _ in range(100):
            x = torch.randn(16, 4, 8)
            x[:, 0] += 1
            optimizer.zero_grad()
            watched(of(net, x), torch.zeros(16).long()).backward()
            optimizer.step()
    assert probe.diagnose().cause != "labels_unlearnable"


def test_a_network_that_tells_two_sources_apart_has_a_label_a_call() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(nn.CrossEntropyLoss())
        for _ in range(100):
            one, two = net(torch.randn(16, 8)), net(torch.randn(16, 8) + 1)
            loss = watched(one, torch.zeros(16).long()) + watched(two, torch.ones(16).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert probe.diagnose().cause is None


def test_the_positive_among_negatives_has_one_label_by_intent() -> None:
    torch.manual_seed(0)
    net = nn.Linear(8, 16)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    with vgexp.Probe(net, optimizer) as probe:
        watched = probe.watch_loss(nn.CrossEntropyLoss())
        for _ in range(100):
            x = torch.randn(32, 8)
            one, two = net(x), net(x + 0.1 * torch.randn(32, 8))
            positive = (one * two).sum(1, keepdim=True)
            negative = one @ two.roll(1, 0).T
            optimizer.zero_grad()
            watched(torch.cat([positive, negative], 1), torch.zeros(32).long()).backward()
            optimizer.step()
    assert probe.diagnose().cause != "labels_unlearnable"
