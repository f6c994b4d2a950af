"""Models: one builder a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vgexp import config as _config
from vgexp.models import cnn, densenet, mlp, recurrence, resnet, user_code
from vgexp.models.attention import transformer, vit
from vgexp.models.mlp import Mlp
from vgexp.models.network import Network
from vgexp.models.recurrence import RECURRENT_INITS, Recurrent
from vgexp.registry import Registry
from vgexp.tasks import Task

__all__ = ["MODELS", "RECURRENT_INITS", "Mlp", "Network", "Recurrent", "build"]

MODELS: Registry[Callable[[Any, Task], nn.Module]] = Registry(
    "model",
    {
        "mlp": mlp.build,
        "cnn": cnn.build,
        "resnet": resnet.build,
        "densenet": densenet.build,
        "rnn": recurrence.build,
        "lstm": recurrence.build,
        "gru": recurrence.build,
        "transformer": transformer.build,
        "vit": vit.build,
        "torchvision": user_code.torchvision,
        "custom": user_code.custom,
    },
)
"""Family -> builder from (configuration, task)."""


def build(model_config: _config.ModelConfig, task: Task, dtype: torch.dtype) -> nn.Module:
    """The model of a configuration, on CPU; `inits.initialise` then draws a `Network`'s weights.

    Raises:
        QuestionError: an unknown name, or values that do not go together.
    """
    return MODELS[_config.choice("model", model_config)](model_config, task).to(dtype)
