"""Schedules: the factor at every update against its formula, and states that go on.

Holds: schedulers.py
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from vgexp import schedulers
from vgexp.config import (
    CHOICES,
    ConstantConfig,
    CosineConfig,
    PlateauConfig,
    SchedulerConfig,
    StepConfig,
    WarmupCosineConfig,
)

BASE = 0.4


def make_optimizer() -> Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=BASE)


def lrs(config: SchedulerConfig, num_steps: int, losses: list[float] | None = None) -> list[float]:
    """The rate of each update, and what it would be after the last one."""
    optimizer = make_optimizer()
    schedule = schedulers.build(config, optimizer, num_steps)
    rates = [optimizer.param_groups[0]["lr"]]
    for s in range(num_steps):
        optimizer.step()
        schedule.after_step()
        if losses:
            schedule.after_eval(losses[s])
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def step_factor(s: int, n: int) -> float:
    falls_at = [k * max(1, round(n / 4)) for k in range(1, n + 1)]
    return math.prod(0.5 for at in falls_at if at <= s)


def warmup_factor(s: int, n: int) -> float:
    w = round(0.25 * n)
    return (s + 1) / (w + 1) if s < w else math.cos(math.pi / 2 * (s - w) / (n - w)) ** 2


REFERENCES: dict[str, tuple[SchedulerConfig, Callable[[int, int], float]]] = {
    "constant": (ConstantConfig(), lambda _s, _n: 1.0),
    "step": (StepConfig(interval_fraction=0.25, factor=0.5), step_factor),
    "cosine": (CosineConfig(), lambda s, n: math.cos(math.pi / 2 * s / n) ** 2),
    "warmup_cosine": (WarmupCosineConfig(warmup_fraction=0.25), warmup_factor),
    "plateau": (PlateauConfig(factor=0.5, patience=1), lambda _s, _n: 1.0),
}


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("name", CHOICES["scheduler"])
def test_the_rate_of_update_s_is_the_written_out_factor_at_s(name: str, num_steps: int) -> None:
    config, factor = REFERENCES[name]
    expected = [BASE * factor(s, num_steps) for s in range(num_steps + 1)]
    assert lrs(config, num_steps) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_step_schedule_of_the_default_falls_twice_in_a_run() -> None:
    assert lrs(StepConfig(), 9)[:9] == pytest.approx(
        [BASE] * 3 + [BASE / 10] * 3 + [BASE / 100] * 3
    )


def test_an_interval_longer_than_the_run_never_falls() -> None:
    assert lrs(StepConfig(interval_fraction=2.0), 5) == [BASE] * 6


def test_a_warmup_starts_above_zero_and_reaches_the_base_rate_when_it_ends() -> None:
    rates = lrs(WarmupCosineConfig(warmup_fraction=0.1), 100)
    assert rates[0] == pytest.approx(BASE / 11)
    assert rates[10] == BASE
    assert max(rates) == BASE


def test_a_warmup_of_no_steps_and_one_of_the_whole_run_work() -> None:
    assert lrs(WarmupCosineConfig(warmup_fraction=0.0), 4) == pytest.approx(lrs(CosineConfig(), 4))
    rates = lrs(WarmupCosineConfig(warmup_fraction=0.99), 4)
    assert rates[:4] == pytest.approx([BASE * k / 5 for k in (1, 2, 3, 4)])


def test_plateau_falls_after_more_than_patience_evaluations_without_progress() -> None:
    losses = [1.0, 0.9, 0.95, 0.9, 0.9, 0.8, math.nan, math.nan, 0.7]
    rates = lrs(PlateauConfig(factor=0.5, patience=1), len(losses), losses)
    halvings = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert rates == [BASE * 0.5**k for k in halvings]


@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("name", CHOICES["scheduler"])
def test_a_loaded_schedule_goes_on_as_if_never_stopped(name: str, optimizer_first: bool) -> None:
    config, _ = REFERENCES[name]
    whole = lrs(config, 12, [1.0] * 12)

    def go_on(optimizer: Optimizer, schedule: schedulers.Schedule, steps: int) -> list[float]:
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
            schedule.after_eval(1.0)
        return rates

    optimizer = make_optimizer()
    schedule = schedulers.build(config, optimizer, 12)
    before = go_on(optimizer, schedule, 5)
    optimizer_state, state = optimizer.state_dict(), schedule.state_dict()

    optimizer = make_optimizer()
    if optimizer_first:
        optimizer.load_state_dict(optimizer_state)
    schedule = schedulers.build(config, optimizer, 12)
    schedule.load_state_dict(state)
    assert before + go_on(optimizer, schedule, 7) == whole[:12]


@pytest.mark.parametrize("name", CHOICES["scheduler"])
def test_a_state_survives_a_checkpoint_that_holds_no_code(name: str, tmp_path: Path) -> None:
    state = schedulers.build(REFERENCES[name][0], make_optimizer(), 3).state_dict()
    torch.save(state, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == state


@pytest.mark.parametrize("name", CHOICES["scheduler"])
def test_no_schedule_warns_when_the_first_step_was_skipped(name: str) -> None:
    schedule = schedulers.build(REFERENCES[name][0], make_optimizer(), 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schedule.after_step()
        schedule.after_step()
    assert caught == []


@pytest.mark.parametrize("name", CHOICES["scheduler"])
def test_a_rate_of_zero_stays_zero(name: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.0)
    schedule = schedulers.build(REFERENCES[name][0], optimizer, 3)
    for _ in range(3):
        optimizer.step()
        schedule.after_step()
        schedule.after_eval(1.0)
        assert optimizer.param_groups[0]["lr"] == 0.0


def test_every_schedule_has_a_reference_and_a_summary() -> None:
    assert set(CHOICES["scheduler"]) == set(REFERENCES)
    assert all(CHOICES["scheduler"].summary(name) for name in CHOICES["scheduler"])
