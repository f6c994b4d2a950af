"""Collects rows of `steps.csv` and `timing.csv` until a flush, so that no step waits for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vgexp.records import Floats, Rows
from vgexp.training.half import SKIPS_IN_A_ROW

FLUSH_STEPS = 100
"""Rows are flushed after this many steps at the latest."""
FLUSH_SECONDS = 0.5
"""On CPU, rows are flushed after this many seconds too; on CUDA a flush waits for the device."""
MEDIAN_STEPS = 1_000
"""Latest steps of each kind whose median time gives the probe's overhead."""


class Step(NamedTuple):
    """One update: plain numbers, and 0-d tensors that may still be on the device."""

    step: int
    epoch: int
    lr: float
    num_targets: int
    hits: Tensor | None
    """Right answers; None where no answer counts as right."""
    values: tuple[Tensor, Tensor, Tensor, Tensor]
    """Loss, gradient norm, the same after clipping, whether clipping changed it."""
    scaling: tuple[Tensor, Tensor] | None = None
    """The loss scale, and how many steps in a row were skipped up to this one; None: no scale."""


class History:
    """The steps since the last flush."""

    def __init__(self, dtype: torch.dtype, deferred: bool) -> None:
        self._dtype = dtype
        self._deferred = deferred
        self._steps: list[Step] = []
        self._last_flush = time.perf_counter()

    def add(self, step: Step) -> None:
        """Adds a step, without reading its tensors."""
        self._steps.append(step)

    @property
    def due(self) -> bool:
        """Whether it is time to flush."""
        if len(self._steps) >= FLUSH_STEPS:
            return True
        late = time.perf_counter() - self._last_flush > FLUSH_SECONDS
        return late and not self._deferred and bool(self._steps)

    def drain(self) -> tuple[Rows, int | None] | None:
        """Returns the rows since the last call, and the first step of them that is not finite.

        On CUDA this waits for the device. None where there are no rows.
        """
        steps, self._steps = self._steps, []
        self._last_flush = time.perf_counter()
        if not steps:
            return None
        loss, norm, norm_clipped, clipped, *hits = self._transfer(steps)
        columns: dict[str, Sequence[Any]] = {
            "step": [s.step for s in steps],
            "epoch": [s.epoch for s in steps],
            "lr": [s.lr for s in steps],
            "loss": Floats(loss.to(self._dtype).numpy()),
            "grad_norm": Floats(norm.to(self._dtype).numpy()),
            "grad_norm_clipped": Floats(norm_clipped.to(self._dtype).numpy()),
            "clipped": [int(c) for c in clipped.tolist()],
            "skipped": [0] * len(steps),
        }
        is_bad = ~torch.isfinite(norm)
        if steps[0].scaling is not None:
            is_bad = self._add_scaling(columns, steps)
        is_bad |= ~torch.isfinite(loss)
        if hits:
            accuracy = hits[0] / torch.tensor([s.num_targets for s in steps])
            columns["accuracy"] = Floats(accuracy.to(self._dtype).numpy())
        first_bad = steps[int(is_bad.int().argmax())].step if bool(is_bad.any()) else None
        return Rows("steps", columns), first_bad

    def _add_scaling(self, columns: dict[str, Sequence[Any]], steps: list[Step]) -> Tensor:
        """Adds the columns of a scaled loss; returns at which steps too many had been skipped."""
        both = zip(*(step.scaling for step in steps if step.scaling is not None), strict=True)
        scale, skips = torch.stack([torch.stack(each) for each in both]).cpu()
        columns["skipped"] = [int(num_skips > 0) for num_skips in skips.tolist()]
        columns["loss_scale"] = Floats(scale.to(self._dtype).numpy())
        too_many: Tensor = skips >= SKIPS_IN_A_ROW
        return too_many

    def _transfer(self, steps: list[Step]) -> Tensor:
        """Copies the numbers to the host at once: [4 or, with right answers, 5, steps], float64."""
        each = [torch.stack([step.values[i] for step in steps]).double() for i in range(4)]
        hits = [step.hits for step in steps if step.hits is not None]
        if hits:
            each.append(torch.stack(hits).double())
        return torch.stack(each).cpu()


class Clock:
    """Times of a run: seconds, throughput, what measured steps cost, processor time of a step."""

    def __init__(self, seconds_before: float = 0.0) -> None:
        self._last = time.perf_counter()
        self._start = self._last - seconds_before
        self._examples = 0
        self._measured: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self._plain: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self._processor: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self._last_processor = time.process_time()
        self._num_measured = self._num_plain = 0
        self._seconds_beside = 0.0

    def step_done(self, seconds: float, examples: int, measured: bool) -> None:
        """Counts a step of `examples` that took `seconds`."""
        self._examples += examples
        (self._measured if measured else self._plain).append(seconds)
        now = time.process_time()
        if not measured:
            self._processor.append(now - self._last_processor)
        self._last_processor = now
        self._num_measured += measured
        self._num_plain += not measured

    def measured_beside(self, seconds: float) -> None:
        """Counts the seconds of a measurement between two steps."""
        self._seconds_beside += seconds

    def row(self, step: int) -> Rows:
        """Makes the row of `timing.csv` after `step` updates."""
        now = time.perf_counter()
        rate = self._examples / max(now - self._last, 1e-9)
        self._last, self._examples = now, 0
        columns: dict[str, list[Any]] = {
            "step": [step],
            "seconds": [round(now - self._start, 6)],
            "examples_per_second": [round(rate, 3)],
        }
        return Rows("timing", columns)

    @property
    def seconds(self) -> float:
        """Seconds since the first update began."""
        return time.perf_counter() - self._start

    @property
    def processor_seconds_per_step(self) -> float | None:
        """The median processor time from a step's end to the next one's, without measured steps.

        Waiting for other processes is no part of it. None where every step is measured, or none is.
        """
        times = sorted(self._processor)
        return times[len(times) // 2] if times else None

    @property
    def probe_overhead(self) -> float | None:
        """The share by which measuring lengthens the run, from median times of steps.

        None where every step is measured, or none is yet.
        """
        if not self._plain or not self._measured:
            return None
        plain = sorted(self._plain)[len(self._plain) // 2]
        measured = sorted(self._measured)[len(self._measured) // 2]
        num_steps = self._num_measured + self._num_plain
        share = self._num_measured / num_steps
        beside = self._seconds_beside / (plain * num_steps)
        return max(0.0, (measured - plain) / plain * share) + beside
