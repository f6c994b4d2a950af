"""What theory expects of the first step of a training run, as columns of its table of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vgexp.assembly.predictors import PREDICTORS
from vgexp.config import Config, choice
from vgexp.data import Split
from vgexp.records import PREDICTED
from vgexp.theory import Forecast, Phase
from vgexp.training import Trainer

_PREFIX = "predicted_"


@dataclass(frozen=True)
class Expectation:
    """Predictions for the weights at step 0."""

    columns: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Weight -> column of `records.PREDICTED` -> value; empty where theory has no answer."""
    times: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """State of `time.csv` -> its `predicted_delta_rms` at t = 0, 1, ..."""
    note: str | None = None
    """Why there is none, or what is known to be off."""
    phase: Phase | None = None
    """Where a plain net lies between vanishing and exploding."""


def expectation(config: Config, trainer: Trainer) -> Expectation:
    """What theory expects of the update that the trainer makes next; it reads no batch twice."""
    predictor = PREDICTORS.get(type(config.model))
    reason = _why_not(config, trainer)
    if predictor is None or reason is not None:
        return Expectation(note=reason or f"no theory of model={choice('model', config.model)}")
    found = predictor(config, trainer)
    forecast = found.forecast
    note = forecast.reason or forecast.caveat
    return Expectation(_columns(forecast), found.times, note, found.phase)


def _why_not(config: Config, trainer: Trainer) -> str | None:
    if config.train.pretrain_steps:
        return "weights that were trained before are not those of theory"
    if not isinstance(trainer.examples, Split):
        return "of data that are read one by one the first batch is not looked at twice"
    return None


def _columns(forecast: Forecast) -> dict[str, dict[str, float | None]]:
    names = [column.name for column in PREDICTED]
    return {
        name: {column: getattr(row, column.removeprefix(_PREFIX)) for column in names}
        for name, row in forecast.rows.items()
    }


def in_summary(expected: Expectation) -> dict[str, Any]:
    """What a summary says of it."""
    there = expected.phase
    end = None if there is None else there.end
    values = {
        "critical_gain": None if there is None else there.critical_gain,
        "chi": None if end is None else end.chi,
        "depth_scale": None if end is None else end.xi_gradient,
    }
    plain = {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
    return {"theory": expected.note, **plain}
