"""Labels that tell nothing: all of one class, or learned by heart while others are guessed.

Holds: diagnosis/rules/labels.py, probe/loss_evaluations.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vgexp

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
