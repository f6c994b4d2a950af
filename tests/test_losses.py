"""Losses against their formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vgexp import losses
from vgexp.errors import QuestionError
from vgexp.losses import LOSSES, RIGHT_WITHIN

OUTPUTS = torch.tensor(
    [[[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], [[1.0, 4.0, 1.0], [-2.0, 0.5, 0.25]]],
    dtype=torch.float64,
)
CLASSES = torch.tensor([[0, 2], [0, 1]])


def by_hand(outputs: torch.Tensor, classes: torch.Tensor, share: float) -> float:
    """-sum_c q_c ln p_c over the targets, q the smoothed one-hot."""
    total, rows = 0.0, outputs.reshape(-1, 3).tolist()
    for row, right in zip(rows, classes.flatten().tolist(), strict=True):
        log_sum = math.log(sum(map(math.exp, row)))
        for c, logit in enumerate(row):
            q = share / 3 + (1 - share) * (c == right)
            total -= q * (logit - log_sum)
    return total / len(rows)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_cross_entropy_with_an_answer_at_each_position(share: float) -> None:
    loss = losses.build("cross_entropy", share)
    expected = by_hand(OUTPUTS, CLASSES, share)
    assert float(loss.mean(OUTPUTS, CLASSES)) == pytest.approx(expected, rel=1e-12)
    flat = loss.mean(OUTPUTS.reshape(4, 3), CLASSES.flatten())
    assert float(flat) == pytest.approx(expected, rel=1e-12)
    assert loss.hits is not None
    assert int(loss.hits(OUTPUTS, CLASSES)) == 3
    assert losses.num_targets(OUTPUTS) == 4


def test_squared_error_is_a_mean_over_values_and_right_is_near_in_every_value() -> None:
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    off = torch.tensor([[0.03, -0.039], [0.0, 0.041], [1.0, 0.0]], dtype=torch.float64)
    loss = losses.build("mse")
    expected = sum(x * x for x in off.flatten().tolist()) / 6
    assert float(loss.mean(outputs, outputs + off)) == pytest.approx(expected, rel=1e-12)
    assert loss.hits is not None
    assert int(loss.hits(outputs, outputs + off)) == 1
    assert RIGHT_WITHIN == 0.04


def test_the_best_constant_answer_is_the_mean_and_costs_the_variance() -> None:
    targets = torch.tensor([[1.0, 10.0], [2.0, 10.0], [6.0, 40.0]], dtype=torch.float64)
    constant = LOSSES["mse"].constant(targets, 2)
    values = targets.numpy()
    grid = [((values - (values.mean(0) + d)) ** 2).mean() for d in np.linspace(-1, 1, 21)]
    assert constant == pytest.approx(min(grid), rel=1e-12)


def test_positions_count_in_the_best_constant_answer() -> None:
    targets = torch.tensor([[0, 0, 1], [0, 1, 1]])
    assert LOSSES["cross_entropy"].constant(targets, 4) == pytest.approx(math.log(2))


def test_values_have_no_classes_to_smooth_over() -> None:
    with pytest.raises(QuestionError, match=r"train.label_smoothing is 0.1, .*train.loss=mse"):
        losses.build("mse", 0.1)
