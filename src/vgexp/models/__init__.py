"""Models: one builder a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vgexp import config as _config
from vgexp.models import mlp
from vgexp.models.mlp import Mlp
from vgexp.registry import Registry

__all__ = ["MODELS", "Mlp", "build"]

MODELS: Registry[Callable[[Any, int, int, torch.dtype], Mlp]] = Registry(
    "model", {"mlp": mlp.build}
)
"""Family -> builder from (configuration, inputs, outputs, dtype)."""


def build(
    model_config: _config.ModelConfig, num_inputs: int, num_outputs: int, dtype: torch.dtype
) -> Mlp:
    """The model of a configuration; `inits.initialise` then draws its weights.

    Raises:
        QuestionError: an unknown name, or values that do not go together.
    """
    return MODELS[_config.choice("model", model_config)](
        model_config, num_inputs, num_outputs, dtype
    )
