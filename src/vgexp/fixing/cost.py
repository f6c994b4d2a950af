"""What a run costs, in steps of the sick run: counted, and so the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vgexp.config import Config
from vgexp.fixing.change import Change

if TYPE_CHECKING:
    from vgexp.training import Trainer
    from vgexp.training.work import Work

_FORWARD = 1 / 3
"""The share of an update's work that its forward pass is: the backward pass is two of them."""
_START = 15_000.0
"""What every run costs whatever its network, in calls of kernels: it is built, its first and last
steps are measured whole, its tables are written, and rules judge it (about 0.1 s)."""
_OF_THE_SAME_WORK = (
    *("optimizer.lr=", "scheduler", "clip.threshold=", "model.gain=", "model.init="),
    *("model.bias_std=", "model.spectral_radius=", "model.forget_bias=", "model.recurrent_init="),
)
"""Beginnings of words that change numbers of a run and no work of it."""
_DIGITS = 2
"""Decimals of a ratio: what differs by less is as much work."""


@dataclass(frozen=True)
class Cost:
    """The cost of a run of one configuration, as a line over its number of steps."""

    step: float = 1.0
    """Of a step, with its part of the evaluations within the run."""
    start: float = 0.0
    """Of what every run has whatever its length: files, pretraining, evaluations at both ends."""

    def of(self, steps: float) -> float:
        """The cost of so many steps."""
        return self.start + steps * self.step

    def __truediv__(self, unit: float) -> Cost:
        return Cost(self.step / unit, self.start / unit)


class Costs:
    """The costs of the sick configuration and of its changes, each counted once.

    The unit is a step of the sick run, with its part of all that the run has beside steps: a whole
    run of the sick configuration costs as many as it has.

    Args:
        build: makes the trainer of a configuration, of which one update is counted.
        full: number of steps of a run at full length.
    """

    def __init__(self, sick: Config, build: Callable[[Config], Trainer], full: int) -> None:
        self._build = build
        counted = self._count(sick)
        self._unit = 1.0 if counted is None else counted.of(full) / full
        self.of_sick = Cost() if counted is None else counted / self._unit
        self._known: dict[str, Cost] = {}

    def of(self, change: Change) -> Cost:
        """The cost of a change; that of the sick configuration where it cannot be counted."""
        if all(word.startswith(_OF_THE_SAME_WORK) for word in change.words):
            return self.of_sick
        if change.override not in self._known:
            counted = self._count(change.config)
            cost = self.of_sick if counted is None else counted / self._unit
            self._known[change.override] = cost
        return self._known[change.override]

    def ratio(self, change: Change) -> float:
        """How many times as much work a step is as one of the sick run."""
        return round(self.of(change).step / self.of_sick.step, _DIGITS)

    def rank(self, change: Change) -> tuple[Any, ...]:
        """What changes are ordered by: the smallest first; of equally small ones that of the least
        work a step, then that of the group nearer to the cause, then by the letters of the words.
        """
        return (change.size, self.ratio(change), change.group, change.words)

    def _count(self, config: Config) -> Cost | None:
        """The cost of a configuration in calls of kernels; None where it cannot be counted."""
        from vgexp.training.work import count_work

        try:
            trainer = self._build(config)
            work = count_work(trainer.state)
        except Exception:  # whatever is wrong with it is said by its run
            return None
        return _line_of(config, trainer, work) if work.total > 0 else None


def _line_of(config: Config, trainer: Trainer, work: Work) -> Cost:
    from vgexp.training.evaluation import EVAL_BATCH

    parts, data = config.train.accumulate, trainer.facts.dataset

    def evaluation(*lengths: int) -> float:
        num_passes = sum(math.ceil(length / EVAL_BATCH) for length in lengths)
        num_updates = sum(lengths) / (config.data.batch_size * parts)
        return _FORWARD * (num_passes * work.calls / parts + num_updates * work.size)

    within = evaluation(len(data.train), len(data.val))
    start = (
        _START + 2 * within + evaluation(len(data.test)) + config.train.pretrain_steps * work.total
    )
    every = config.train.eval_every
    return Cost(work.total + (within / every if every else 0.0), start)
