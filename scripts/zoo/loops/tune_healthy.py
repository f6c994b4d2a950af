"""Healthy loops of the half by which rules may be set."""

from __future__ import annotations

import torch
from torch import nn

from zoo.loops.batches import accuracy_goal, batches_of, split
from zoo.loops.data_tune import digits
from zoo.loops.loop import HEALTHY, TUNE, Parts, loops_of


def _digits_cnn(_cured: bool) -> Parts:
    (x, y), (x_test, y_test) = split(*digits(), 300)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, 10),
    )  # fmt: skip
    return Parts(
        model,
        torch.optim.AdamW(model.parameters(), lr=3e-3),
        nn.CrossEntropyLoss(),
        batches_of(x, y, 300),
        accuracy_goal(x_test, y_test, 0.9),
        num_classes=10,
    )


LOOPS = loops_of(TUNE, (("healthy_digits_cnn", HEALTHY, _digits_cnn),))
