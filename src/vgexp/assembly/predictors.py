"""The theory of each model family: predicts its columns of step 0 for a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from vgexp.config import CnnConfig, Config, GruConfig, LstmConfig, MlpConfig, ModelConfig, RnnConfig
from vgexp.models import cnn
from vgexp.models.recurrence.draws import RECURRENT_INITS
from vgexp.norms import NORMS
from vgexp.theory import Forecast, Sample, convolution, phase, predict, recurrence
from vgexp.training import Trainer

Family = TypeVar("Family", bound=ModelConfig)

Predictor = Callable[[Config, Trainer], Forecast]


def _perceptron(config: Config, trainer: Trainer) -> Forecast:
    model, task = _of(config, MlpConfig), trainer.facts.dataset.task
    statistics = NORMS[model.norm].statistics
    is_over_batch = statistics is not None and statistics(model.width, model).num_entries is None
    forecast = predict(model, _sample(trainer, first_only=is_over_batch), task.num_outputs)
    return replace(forecast, phase=phase(model, _start(forecast)))


def _convolutions(config: Config, trainer: Trainer) -> Forecast:
    model, sample = _of(config, CnnConfig), _sample(trainer)
    task = trainer.facts.dataset.task
    layers = [
        convolution.Convolution(
            f"layers.{index}.conv.weight",
            place.in_channels,
            place.out_channels,
            place.kernel,
            place.stride,
        )
        for index, place in enumerate(cnn.plan(model, sample.inputs.shape[1]))
    ]
    forecast = convolution.predict(model, layers, sample, task.num_outputs)
    return replace(forecast, phase=phase(model, _start(forecast), PLAIN[CnnConfig]))


def _recurrence(config: Config, trainer: Trainer) -> Forecast:
    model, task = _of(config, RnnConfig), trainer.facts.dataset.task
    if task.per_position:
        return Forecast(reason="theory is of recurrent nets that answer once, after the last step")
    recurrent = RECURRENT_INITS[model.recurrent_init]
    tokens = task.num_tokens if task.kind == "tokens" else 0
    return recurrence.predict(model, recurrent, _sample(trainer), tokens, task.num_outputs)


def _without(reason: str) -> Predictor:
    return lambda _config, _trainer: Forecast(reason=reason)


_GATED = _without("gates multiply what they also make: theory is of plain recurrence (model=rnn)")

PREDICTORS: Mapping[type[ModelConfig], Predictor] = {
    MlpConfig: _perceptron,
    CnnConfig: _convolutions,
    RnnConfig: _recurrence,
    LstmConfig: _GATED,
    GruConfig: _GATED,
}
"""A family's configuration -> its predictor; for other families there is no theory."""

PLAIN: Mapping[type[ModelConfig], Sequence[int]] = {
    MlpConfig: (),
    CnnConfig: (cnn.KERNEL, cnn.KERNEL),
}
"""Families that may be a chain of equal layers -> rows and columns of a weight's kernel."""


def _sample(trainer: Trainer, *, first_only: bool = False) -> Sample:
    """The examples of the coming update, or those of its first micro-batch."""
    batch = trainer.state.coming_batch()
    inputs, targets = _together(batch[:1] if first_only else batch)
    loss = trainer.facts.loss
    return Sample(inputs, targets, loss.mean, loss.is_mean)


def _together(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    inputs, targets = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def _start(forecast: Forecast) -> float:
    """The variance of the first z."""
    return forecast.layers[0].variance if forecast.layers else 1.0


def _of(config: Config, family: type[Family]) -> Family:
    assert isinstance(config.model, family)
    return config.model
