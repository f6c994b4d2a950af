"""Optimizers: updates against those written out by hand, and the states that they keep.

Holds: optimizers.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import sqrt

import pytest
import torch
from torch import nn

from vgexp import optimizers
from vgexp.config import (
    CHOICES,
    AdamConfig,
    AdamwConfig,
    MomentumConfig,
    OptimizerConfig,
    RmspropConfig,
    SgdConfig,
)

Gradient = Callable[[float], float]
STEPS = 3


def sgd(w: float, gradient: Gradient, c: SgdConfig) -> float:
    for _ in range(STEPS):
        w -= c.lr * (gradient(w) + c.weight_decay * w)
    return w


def momentum(w: float, gradient: Gradient, c: MomentumConfig) -> float:
    v = 0.0
    for _ in range(STEPS):
        v = c.momentum * v + gradient(w) + c.weight_decay * w
        w -= c.lr * v
    return w


def rmsprop(w: float, gradient: Gradient, c: RmspropConfig) -> float:
    s = v = 0.0
    for _ in range(STEPS):
        g = gradient(w) + c.weight_decay * w
        s = 0.99 * s + 0.01 * g * g
        v = c.momentum * v + g / (sqrt(s) + 1e-8)
        w -= c.lr * v
    return w


def _adam_step(moments: list[float], g: float, t: int) -> float:
    moments[0] = 0.9 * moments[0] + 0.1 * g
    moments[1] = 0.999 * moments[1] + 0.001 * g * g
    return moments[0] / (1 - 0.9**t) / (sqrt(moments[1] / (1 - 0.999**t)) + 1e-8)


def adam(w: float, gradient: Gradient, c: AdamConfig) -> float:
    moments = [0.0, 0.0]
    for t in range(1, STEPS + 1):
        w -= c.lr * _adam_step(moments, gradient(w) + c.weight_decay * w, t)
    return w


def adamw(w: float, gradient: Gradient, c: AdamwConfig) -> float:
    moments = [0.0, 0.0]
    for t in range(1, STEPS + 1):
        w = w * (1 - c.lr * c.weight_decay) - c.lr * _adam_step(moments, gradient(w), t)
    return w


REFERENCES: dict[str, Callable[..., float]] = {
    "sgd": sgd,
    "momentum": momentum,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
}


def configurations(name: str) -> list[OptimizerConfig]:
    cls = CHOICES["optimizer"][name]
    keys = {"lr": 0.05, "weight_decay": 0.3}
    if "momentum" in {field.name for field in dataclasses.fields(cls)}:
        keys["momentum"] = 0.7
    return [cls(), cls(**keys)]


@pytest.mark.parametrize("name", CHOICES["optimizer"])
def test_three_updates_equal_those_written_out_by_hand(name: str) -> None:
    for config in configurations(name):
        starts = [0.3, -2.0, 1e-3]
        weight = nn.Parameter(torch.tensor(starts, dtype=torch.float64))
        optimizer = optimizers.build(config, [weight])
        for _ in range(STEPS):
            weight.grad = 4 * weight.detach() ** 3 - 1
            optimizer.step()
        expected = [REFERENCES[name](w, lambda w: 4 * w**3 - 1, config) for w in starts]
        assert weight.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SgdConfig(), 0),
        (SgdConfig(weight_decay=0.1), 0),
        (MomentumConfig(), 1),
        (MomentumConfig(momentum=0.0), 0),
        (RmspropConfig(), 1),
        (RmspropConfig(momentum=0.5), 2),
        (AdamConfig(), 2),
        (AdamwConfig(lr=0.0), 2),
    ],
)
def test_the_states_are_those_of_the_update_rule(config: OptimizerConfig, expected: int) -> None:
    assert optimizers.num_states(config) == expected


def test_every_optimizer_has_a_reference_and_a_summary_of_one_line() -> None:
    assert set(REFERENCES) == set(CHOICES["optimizer"])
    for name in CHOICES["optimizer"]:
        assert 10 < len(CHOICES["optimizer"].summary(name)) < 100
