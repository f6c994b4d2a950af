"""Schedules of the learning rate: torch's schedulers, moved after each update or each evaluation.

The learning rate of update s is the base rate times the schedule's factor at s, s from 0.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any, final

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    ReduceLROnPlateau,
    StepLR,
)

from vgexp.config import (
    ConstantConfig,
    CosineConfig,
    PlateauConfig,
    SchedulerConfig,
    StepConfig,
    WarmupCosineConfig,
    unmade,
)
from vgexp.torch_internals import mark_as_stepped


@final
class Schedule:
    """One of torch's schedulers, which moves after each step, after each evaluation, or never."""

    def __init__(
        self,
        optimizer: Optimizer,
        by_step: LRScheduler | None = None,
        by_eval: ReduceLROnPlateau | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._by_step = by_step
        self._by_eval = by_eval
        mark_as_stepped(optimizer)

    @property
    def hears_evaluations(self) -> bool:
        """Whether `after_eval` moves the schedule."""
        return self._by_eval is not None

    def after_step(self) -> None:
        """Moves the schedule; call it once after every optimizer step, also a skipped one."""
        if self._by_step is not None:
            self._by_step.step()

    def after_eval(self, val_loss: float) -> None:
        """Moves the schedule; call it after every evaluation. A nan counts as no progress."""
        if self._by_eval is not None:
            self._by_eval.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the schedule, with the learning rates of the optimizer's groups."""
        moving = self._by_step or self._by_eval
        return {
            "lr": [group["lr"] for group in self._optimizer.param_groups],
            "scheduler": moving.state_dict() if moving else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state`, before or after the optimizer's own state is loaded."""
        moving = self._by_step or self._by_eval
        if moving:
            moving.load_state_dict(state["scheduler"])
        for group, lr in zip(self._optimizer.param_groups, state["lr"], strict=True):
            group["lr"] = lr


@singledispatch
def build(config: SchedulerConfig, optimizer: Optimizer, num_steps: int) -> Schedule:  # noqa: ARG001
    """Builds the configured schedule for a run of `num_steps` optimizer steps."""
    raise unmade(config)


@build.register
def constant(_config: ConstantConfig, optimizer: Optimizer, _num_steps: int) -> Schedule:
    """The learning rate stays the same."""
    return Schedule(optimizer)


@build.register
def step(config: StepConfig, optimizer: Optimizer, num_steps: int) -> Schedule:
    """The learning rate falls by a factor at equal intervals: factor ** floor(s / interval)."""
    interval = max(1, round(config.interval_fraction * num_steps))
    return Schedule(optimizer, by_step=StepLR(optimizer, interval, gamma=config.factor))


@build.register
def cosine(_config: CosineConfig, optimizer: Optimizer, num_steps: int) -> Schedule:
    """The rate follows half a cosine to 0 (Loshchilov & Hutter 2017): (1 + cos(pi s/S))/2.

    S is the number of steps, so the last update has a small rate, not 0.
    """
    return Schedule(optimizer, by_step=CosineAnnealingLR(optimizer, T_max=num_steps))


@build.register
def warmup_cosine(config: WarmupCosineConfig, optimizer: Optimizer, num_steps: int) -> Schedule:
    """The rate rises linearly, then follows half a cosine down to 0.

    With w steps of rise: (s + 1) / (w + 1) for s < w, then (1 + cos(pi (s - w)/(S - w))) / 2, so
    that update 0 has a rate above 0 and update w the base rate.
    """
    rise = round(config.warmup_fraction * num_steps)
    fall = max(num_steps - rise, 1)

    def factor(s: int) -> float:
        if s < rise:
            return (s + 1) / (rise + 1)
        return (1 + math.cos(math.pi * (s - rise) / fall)) / 2

    # SequentialLR would join torch's own two, but warns of its own calls in torch 2.6.
    return Schedule(optimizer, by_step=LambdaLR(optimizer, factor))


@build.register
def plateau(config: PlateauConfig, optimizer: Optimizer, _num_steps: int) -> Schedule:
    """The learning rate falls when the evaluated loss stops falling.

    At evaluation `patience` + 1 in a row without a loss below 0.9999 times the best so far.
    """
    return Schedule(
        optimizer,
        by_eval=ReduceLROnPlateau(optimizer, factor=config.factor, patience=config.patience),
    )
