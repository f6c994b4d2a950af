"""A trial: one run of a change, and what came out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgexp.diagnosis import Diagnosis
from vgexp.diagnosis.at_end import attenuation_at_end
from vgexp.diagnosis.learning import LEARNED_BELOW
from vgexp.diagnosis.root import HEALTHY, SICK, UNDECIDED
from vgexp.past import PastRun
from vgexp.past.diagnosing import diagnose_run

_CAUSE = "cause_id"
_AT_FIRST = ("time_attenuation", "attenuation")
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
    attenuation_first: float
    """At step 0: through the layers, of a recurrent net through time."""
    attenuation: float
    """The same over the last 20 steps, whose mean loss the verdict is about."""
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
        known = [a for a in (self.attenuation, self.attenuation_first) if not math.isnan(a)]
        off = abs(math.log(known[0])) if known and known[0] > 0 else math.inf
        return (1.0, off) if math.isfinite(share) else (math.inf, off)

    @property
    def numbers(self) -> str:
        """Its loss beside that of a guess, its accuracy, and its signal, in words."""
        told = [f"loss {self.loss:.3g} after {self.made} steps"]
        if math.isfinite(self.loss_share):
            told.append(f"{self.loss_share:.2g} of the {self.constant_loss:.3g} of a guess")
        if math.isfinite(self.val_accuracy):
            told.append(f"validation accuracy {self.val_accuracy:.2f}")
        if not math.isnan(self.attenuation):
            told.append(f"attenuation {self.attenuation:.2g}")
        return ", ".join(told)

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
    health, cause = _told_by(past, summary) if diagnosis is None else _told(diagnosis)
    made = int(summary.get("steps") or 0)
    at_first = [number for name in _AT_FIRST if (number := _number(summary.get(name))) == number]
    return Trial(
        folder,
        int(summary.get("seed") or 0),
        steps,
        made,
        str(summary["status"]),
        summary.get("verdict"),
        health,
        cause,
        _number(summary.get("loss_last_mean_20")),
        _number(summary.get("constant_loss")),
        _number(summary.get("val_accuracy_last")),
        at_first[0] if at_first else math.nan,
        _attenuation_at_end(past, summary, made),
        _seconds_per_step(past, summary),
        summary.get("num_parameters"),
    )


def _told_by(past: PastRun, summary: dict[str, Any]) -> tuple[str, str | None]:
    """The health and the cause, as a diagnosis says them.

    The summary of a run that has ended has the cause, which is not looked for again; it has no
    health where nobody knows what a guess costs.
    """
    verdict = summary.get("verdict")
    if verdict is None or _CAUSE not in summary:
        return _told(diagnose_run(past))
    cause = summary[_CAUSE]
    if cause is not None:
        return SICK, str(cause)
    return (HEALTHY if verdict == HEALTHY else UNDECIDED), None


def _told(diagnosis: Diagnosis) -> tuple[str, str | None]:
    return diagnosis.health, diagnosis.cause


def _attenuation_at_end(past: PastRun, summary: dict[str, Any], made: int) -> float:
    is_users = "compared" in summary
    return attenuation_at_end(
        past.table("layers"),
        past.table("time", ("step", "layer", "name", "t", "delta_rms")),
        made,
        num_layers=None if is_users else summary.get("num_layers"),
        is_users=is_users,
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
