"""Theory's predictions for the first step of a run, as columns of its tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vgexp.assembly.predictors import PLAIN, PREDICTORS
from vgexp.config import Config, NetConfig, choice
from vgexp.data import Split
from vgexp.errors import QuestionError
from vgexp.quantities import PREDICTED, PREDICTION
from vgexp.theory import Explanation, Forecast, Phase, critical_gain
from vgexp.training import Trainer

_SAME = 1e-3
"""Relative difference below which a gain is the critical one."""
_OF_MIDDLE = ("weight_gain", "mean_slope", "branch_factor", "carried_factor", "middle_factor")


@dataclass(frozen=True)
class Expectation:
    """What theory predicts for step 0."""

    columns: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Weight -> column of `quantities.PREDICTED` -> value; empty where theory has no answer."""
    times: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """State of `time.csv` -> its `predicted_delta_rms` at t = 0, 1, ..."""
    note: str | None = None
    """Why there is no prediction, or what is known to be inaccurate in it."""
    phase: Phase | None = None
    """Where a plain net lies between vanishing and exploding."""
    layers: tuple[Explanation, ...] = ()
    """For each hidden layer, the parts that its factor is the product of."""
    critical_attenuation: float | None = None
    """delta_rms of layer 1 over that of the last layer, at the gain that makes chi 1."""


def expectation(config: Config, trainer: Trainer, *, with_critical: bool = False) -> Expectation:
    """Predicts the trainer's next update; the trainer still reads that update's batch.

    Args:
        with_critical: whether to predict for the critical gain as well, if it is another one.
    """
    predictor = PREDICTORS.get(type(config.model))
    reason = _why_not(config, trainer)
    if predictor is None or reason is not None:
        return Expectation(note=reason or f"no theory of model={choice('model', config.model)}")
    found = predictor(config, trainer)
    forecast = found.forecast
    note = forecast.reason or forecast.caveat
    critical = _critical_attenuation(config, trainer, found.phase) if with_critical else None
    return Expectation(
        _columns(forecast), found.times, note, found.phase, forecast.layers, critical
    )


def at_critical_gain(config: Config) -> Config:
    """Sets `model.gain` to the value at which chi is 1 by theory.

    Raises:
        QuestionError: theory knows none.
    """
    kernel = PLAIN.get(type(config.model))
    if kernel is None:
        raise QuestionError(_no_gain(f"model={choice('model', config.model)}"))
    assert isinstance(config.model, NetConfig)
    gain, reason = critical_gain(config.model, kernel)
    if gain is None:
        raise QuestionError(_no_gain(str(reason)))
    return _with_gain(config, gain)


def _with_gain(config: Config, gain: float) -> Config:
    assert isinstance(config.model, NetConfig)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, gain=gain))


def _no_gain(reason: str) -> str:
    return (
        f"signal.critical is true, but theory knows no gain that keeps the signal: {reason}\n"
        "allowed: a plain net (model=mlp or cnn, model.norm=none model.skip=none) with an"
        " activation and an init that theory knows, or signal.critical=false"
    )


def _why_not(config: Config, trainer: Trainer) -> str | None:
    if config.train.pretrain_steps:
        return "weights that were trained before are not those of theory"
    if not isinstance(trainer.facts.dataset.train, Split):
        return "of data that are read one by one the first batch is not looked at twice"
    return None


def _columns(forecast: Forecast) -> dict[str, dict[str, float | None]]:
    names = [column.name for column in PREDICTED]
    return {
        name: {column: getattr(row, column.removeprefix(PREDICTION)) for column in names}
        for name, row in forecast.rows.items()
    }


def in_summary(expected: Expectation) -> dict[str, Any]:
    """Makes the part of a summary about theory; numbers may be infinite or nan."""
    there = expected.phase
    end = None if there is None else there.end
    return {
        "theory": expected.note,
        **_middle(expected),
        "critical_gain": None if there is None else there.critical_gain,
        "critical_attenuation": expected.critical_attenuation,
        "chi": None if end is None else end.chi,
        "depth_scale": None if end is None else end.xi_gradient,
    }


def _critical_attenuation(config: Config, trainer: Trainer, there: Phase | None) -> float | None:
    """Predicts the attenuation at the gain that makes chi 1, if the net's is another one."""
    gain = None if there is None else there.critical_gain
    model = config.model
    if gain is None or not isinstance(model, NetConfig) or abs(gain - model.gain) < _SAME * gain:
        return None
    at_gain = _with_gain(config, gain)
    hidden = list(PREDICTORS[type(model)](at_gain, trainer).forecast.rows.values())[:-1]
    if not hidden:
        return None
    first, last = hidden[0].delta_rms, hidden[-1].delta_rms
    return first / last if first is not None and last else None


def _middle(expected: Expectation) -> dict[str, float | None]:
    """The parts of the factor of the middle hidden layer, or of the nearest inner one.

    For a recurrent net they are those of the factor of a step back in time.
    """
    layers = expected.layers
    if not layers:
        return dict.fromkeys(_OF_MIDDLE)
    half = len(layers) // 2
    inner = [index for index, layer in enumerate(layers) if layer.is_inner]
    layer = layers[min(inner or [half], key=lambda index: abs(index - half))]
    # Between layers; a step in time has no column of its own.
    gain = None if expected.times else expected.columns[layer.name]["predicted_backward_gain"]
    found = (layer.weight_gain, layer.mean_slope, layer.chi, layer.carried, gain)
    return dict(zip(_OF_MIDDLE, found, strict=True))
