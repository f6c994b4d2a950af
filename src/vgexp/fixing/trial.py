"""A trial: one run of a change, and what came out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgexp.diagnosis import Diagnosis
from vgexp.diagnosis.learning import LEARNED_BELOW
from vgexp.past import PastRun
from vgexp.past.diagnosing import diagnose_run

_ATTENUATIONS = (
    *("time_attenuation_last", "time_attenuation"),
    *("attenuation_last", "attenuation"),
)
MOVED = 0.97
"""Share of the guess's loss below which a loss says more than the signal."""


@dataclass(frozen=True)
class Trial:
    """What came out of one run."""

    folder: Path
    seed: int
    steps: int
    """Number of steps that it was to make."""
    made: int
    """Number of steps that it made."""
    status: str
    verdict: str | None
    health: str
    cause: str | None
    loss: float
    """Mean of the last 20 steps; nan where the run diverged."""
    constant_loss: float
    val_accuracy: float
    attenuation: float
    """Through the layers, of a recurrent net through time; at the end, or else at the start."""
    seconds_per_step: float
    num_parameters: int | None

    @property
    def is_healthy(self) -> bool:
        """Whether it learned, still knew it at the end, and nothing else is wrong."""
        return self.health == "healthy"

    @property
    def loss_share(self) -> float:
        """The loss divided by what guessing costs; inf where it is not known or not finite."""
        share = self.loss / self.constant_loss if self.constant_loss else math.nan
        return share if math.isfinite(share) else math.inf

    @property
    def has_learned(self) -> bool:
        """Whether the last loss is that of a network which learned, however short the run."""
        return self.is_healthy or self.loss_share < LEARNED_BELOW

    @property
    def rank(self) -> tuple[float, float]:
        """Smaller is more promising: by the loss, and at chance by how far the signal is off 1."""
        share = self.loss_share
        if share < MOVED:
            return (share, 0.0)
        off = abs(math.log(self.attenuation)) if self.attenuation > 0 else math.inf
        return (1.0 if math.isfinite(share) else 2.0, off if math.isfinite(off) else math.inf)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        told = {**asdict(self), "folder": str(self.folder)}
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in told.items()
        }


def read_trial(folder: Path, steps: int, diagnosis: Diagnosis | None = None) -> Trial:
    """Reads a run that has ended.

    Raises:
        QuestionError: it has no summary.
    """
    past = PastRun(folder, is_strict=False)
    summary = past.require_summary()
    diagnosis = diagnosis or diagnose_run(past)
    attenuation = next(
        (number for name in _ATTENUATIONS if math.isfinite(number := _number(summary.get(name)))),
        math.nan,
    )
    return Trial(
        folder,
        int(summary.get("seed") or 0),
        steps,
        int(summary.get("steps") or 0),
        str(summary["status"]),
        summary.get("verdict"),
        diagnosis.health,
        diagnosis.cause,
        _number(summary.get("loss_last_mean_20")),
        _number(summary.get("constant_loss")),
        _number(summary.get("val_accuracy_last")),
        attenuation,
        _seconds_per_step(past, summary),
        summary.get("num_parameters"),
    )


def _seconds_per_step(past: PastRun, summary: dict[str, Any]) -> float:
    """Seconds of a step where nothing else keeps the machine busy: processor time.

    Of a run on CUDA at the highest rate between two flushes; nan where a run of an earlier version
    did not measure it.
    """
    if str(summary.get("device")) == "cpu":
        return _number(summary.get("processor_seconds_per_step"))
    timing, config = past.table("timing", ("step", "examples_per_second")), past.config
    if timing is None or config is None or not len(timing):
        return math.nan
    rate = float(timing["examples_per_second"].max())
    return config.data.batch_size * config.train.accumulate / rate if rate > 0 else math.nan


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
