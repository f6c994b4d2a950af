"""The losses against their formulas in plain Python, and which targets each is for.

Axes: B examples, T positions, C classes, K values.

Holds: losses.py
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from trainers import BASE, changed, tables_of

from vgexp import losses
from vgexp.assembly import assemble
from vgexp.errors import QuestionError
from vgexp.losses import LOSSES, RIGHT_WITHIN


def drawn(*shape: int) -> Tensor:
    numbers = torch.Generator().manual_seed(7)
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=numbers)


LOGITS_BC, CLASSES_B = drawn(5, 3), torch.tensor([2, 0, 0, 1, 2])
LOGITS_BTC, CLASSES_BT = drawn(4, 6, 3), torch.arange(24).reshape(4, 6) * 7 % 3


def probabilities(logits: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def cross_entropy(logits: Tensor, classes: Tensor, share: float) -> float:
    """Mean of -sum_c q_c ln p_c, q the smoothed target probability."""
    num_classes = logits.shape[-1]
    parts = []
    for row, right in zip(
        logits.reshape(-1, num_classes).tolist(), classes.flatten().tolist(), strict=True
    ):
        p = probabilities(row)
        q = [(1 - share) * (c == right) + share / num_classes for c in range(num_classes)]
        parts.append(-sum(q_c * math.log(p_c) for q_c, p_c in zip(q, p, strict=True)))
    return sum(parts) / len(parts)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
@pytest.mark.parametrize(
    ("logits", "classes"), [(LOGITS_BC, CLASSES_B), (LOGITS_BTC, CLASSES_BT)], ids=["B", "BT"]
)
def test_cross_entropy_is_its_formula(logits: Tensor, classes: Tensor, share: float) -> None:
    loss = losses.build("cross_entropy", share)
    assert loss.mean(logits, classes).item() == pytest.approx(cross_entropy(logits, classes, share))
    assert loss.mean(logits, classes).dtype == torch.float64
    hits = sum(
        row.index(max(row)) == right
        for row, right in zip(
            logits.reshape(-1, 3).tolist(), classes.flatten().tolist(), strict=True
        )
    )
    assert loss.hits is not None
    assert int(loss.hits(logits, classes)) == hits
    assert losses.num_targets(logits) == classes.numel()


@pytest.mark.parametrize("shape", [(5, 2), (4, 6, 2)], ids=["B", "BT"])
def test_mse_is_its_formula_and_right_is_near_in_every_component(shape: tuple[int, ...]) -> None:
    values = drawn(*shape)
    errors = torch.linspace(-0.1, 0.1, values.numel(), dtype=torch.float64).reshape(shape)
    outputs = values + errors
    loss = losses.build("mse")
    squares = [(a - b) ** 2 for a, b in zip(outputs.flatten(), values.flatten(), strict=True)]
    assert loss.mean(outputs, values).item() == pytest.approx(sum(squares) / len(squares))
    near = sum(all(abs(e) < RIGHT_WITHIN for e in row) for row in errors.reshape(-1, 2).tolist())
    assert 0 < near < values.numel() // 2
    assert loss.hits is not None
    assert int(loss.hits(outputs, values)) == near
    assert losses.num_targets(outputs) == values.numel() // 2


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_the_constant_of_cross_entropy_is_the_least_that_constant_logits_reach(
    share: float,
) -> None:
    classes = torch.tensor([0, 0, 0, 1, 2, 2, 0, 2])
    loss = losses.build("cross_entropy", share)
    reached = []
    grid = [x / 10 for x in range(-40, 21)]
    for first, second in itertools.product(grid, grid):
        logits = torch.tensor([[first, second, 0.0]], dtype=torch.float64).expand(8, 3)
        reached.append(loss.mean(logits, classes).item())
    constant = loss.constant(classes, 3)
    assert constant <= min(reached)
    assert constant == pytest.approx(min(reached), abs=2e-3)


def test_the_constant_of_cross_entropy_leaves_absent_classes_out() -> None:
    classes = torch.tensor([[0, 3], [3, 0]])
    assert LOSSES["cross_entropy"].constant(classes, 5) == pytest.approx(math.log(2))
    assert LOSSES["cross_entropy"].constant(torch.zeros(4, dtype=torch.int64), 5) == 0


def test_the_constant_of_mse_is_what_the_mean_reaches() -> None:
    values = drawn(7, 2) + torch.tensor([3.0, -5.0])
    mse = LOSSES["mse"]
    mean = values.mean(0).expand(7, 2)
    constant = mse.constant(values, 2)
    assert constant == pytest.approx(mse.mean(mean, values).item())
    assert constant < mse.mean(mean + 0.01, values).item()
    # A constant for each position, since which one it is does not depend on the input.
    assert mse.constant(drawn(4, 6, 2), 2) == pytest.approx(
        drawn(4, 6, 2).var(0, correction=0).mean().item()
    )


def test_smoothing_trains_on_the_smoothed_loss_and_keeps_the_accuracy() -> None:
    plain, smooth = (
        tables_of(changed(BASE, train={"label_smoothing": share, "steps": 1})) for share in (0, 0.2)
    )
    assert plain["steps"]["accuracy"] == smooth["steps"]["accuracy"]
    trainer = assemble(BASE)
    x, y = trainer.state.batches.next()
    expected = cross_entropy(trainer.state.model(x).detach(), y, 0.2)
    assert smooth["steps"]["loss"][0] == pytest.approx(expected)
    assert plain["steps"]["loss"][0] != pytest.approx(expected)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            {"loss": "mse"},
            "train.loss is 'mse', which is for values; the targets of data=gaussian are classes\n"
            "allowed: cross_entropy, or null",
        ),
        ({"loss": "cross_entrop"}, "nearest: cross_entropy"),
        ({"label_smoothing": 1.0}, "train.label_smoothing is 1.0"),
        ({"label_smoothing": -0.1}, "train.label_smoothing is -0.1"),
    ],
)
def test_what_does_not_fit_the_targets_is_refused(train: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionError, match=said):
        assemble(changed(BASE, train=train))


def test_values_are_no_classes() -> None:
    with pytest.raises(QuestionError, match=r"for classes; the targets of data=adding are values"):
        losses.require_targets("cross_entropy", drawn(5, 1), "adding")
    losses.require_targets("mse", drawn(5, 1), "adding")
    losses.require_targets("cross_entropy", CLASSES_BT, "copy")
    with pytest.raises(QuestionError, match="mse has no classes"):
        losses.build("mse", 0.1)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_says_whether_it_is_for_classes(name: str) -> None:
    for targets in (CLASSES_B, drawn(5, 1)):
        fits = (LOSSES[name].smoothed is not None) == (targets.dtype == torch.int64)
        if fits:
            losses.require_targets(name, targets, "any")
        else:
            with pytest.raises(QuestionError, match="allowed"):
                losses.require_targets(name, targets, "any")
