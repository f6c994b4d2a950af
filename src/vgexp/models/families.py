"""From a model's configuration to the model.

Each family's module registers its own function with `make`, for its class of configurations and all
that extend it.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import nn

from vgexp.config import ModelConfig, unmade
from vgexp.tasks import Task


@singledispatch
def make(config: ModelConfig, task: Task) -> nn.Module:  # noqa: ARG001
    """Makes the model of a configuration on the CPU, in float32; its weights are not drawn yet.

    Raises:
        QuestionError: an unknown name, or values that do not go together.
    """
    raise unmade(config)


def build(config: ModelConfig, task: Task, dtype: torch.dtype) -> nn.Module:
    """Makes the model of a configuration in a dtype; `inits.initialise` then draws its weights.

    Raises:
        QuestionError: an unknown name, or values that do not go together.
    """
    return make(config, task).to(dtype)
