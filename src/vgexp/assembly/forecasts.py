"""Asks theory about the first step of a run, and makes the entries of the summary of its answer."""

from __future__ import annotations

import dataclasses
from typing import Any

from vgexp.assembly.predictors import PLAIN, PREDICTORS
from vgexp.config import Config, NetConfig, choice
from vgexp.data import Split
from vgexp.errors import QuestionError
from vgexp.theory import Forecast, Phase, critical_gain
from vgexp.training import Trainer

_SAME = 1e-3
"""Relative difference below which a gain is the critical one."""
_OF_MIDDLE = ("weight_gain", "mean_slope", "branch_factor", "carried_factor", "middle_factor")


def forecast_first_step(
    config: Config, trainer: Trainer, *, with_critical: bool = False
) -> Forecast:
    """Predicts the update that the trainer makes next; reads no batch twice.

    Args:
        with_critical: whether to predict it at the critical gain as well, where this is another.
    """
    predict = PREDICTORS.get(type(config.model))
    reason = _why_not(config, trainer)
    if predict is None or reason is not None:
        return Forecast(reason=reason or f"no theory of model={choice('model', config.model)}")
    forecast = predict(config, trainer)
    if not with_critical:
        return forecast
    attenuation = _critical_attenuation(config, trainer, forecast.phase)
    return dataclasses.replace(forecast, critical_attenuation=attenuation)


def set_critical_gain(config: Config) -> Config:
    """The configuration with the `model.gain` at which theory says that chi is 1.

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


def summarise_forecast(forecast: Forecast) -> dict[str, Any]:
    """The entries of a summary that theory gives; numbers may be infinite or nan."""
    there = forecast.phase
    end = None if there is None else there.end
    return {
        "theory": forecast.note,
        **_middle(forecast),
        "critical_gain": None if there is None else there.critical_gain,
        "critical_attenuation": forecast.critical_attenuation,
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
    hidden = list(PREDICTORS[type(model)](at_gain, trainer).rows.values())[:-1]
    if not hidden:
        return None
    first, last = hidden[0].delta_rms, hidden[-1].delta_rms
    return first / last if first is not None and last else None


def _middle(forecast: Forecast) -> dict[str, float | None]:
    """Where the factor of the middle hidden layer comes from, or of the nearest inner one; of a
    recurrent net that of a step back in time."""
    layers = forecast.layers
    if not layers:
        return dict.fromkeys(_OF_MIDDLE)
    half = len(layers) // 2
    inner = [index for index, layer in enumerate(layers) if layer.is_inner]
    layer = layers[min(inner or [half], key=lambda index: abs(index - half))]
    # Between layers; a step in time has no column of its own.
    gain = None if forecast.times else forecast.rows[layer.name].backward_gain
    found = (layer.weight_gain, layer.mean_slope, layer.chi, layer.carried, gain)
    return dict(zip(_OF_MIDDLE, found, strict=True))
