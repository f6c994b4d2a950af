"""What tests of attention share: tasks, inputs and small networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vgexp.models import Network, build
from vgexp.tasks import Task

NUM_TOKENS, FEATURES, OUTPUTS, LENGTH, BATCH = 7, 5, 3, 6, 4

TOKENS = Task("tokens", (LENGTH,), OUTPUTS, NUM_TOKENS, per_position=True)

ONE_ANSWER = Task("tokens", (LENGTH,), OUTPUTS, NUM_TOKENS)

STEPS = Task("sequence", (LENGTH, FEATURES), OUTPUTS)

LABELLED = Task("sequence", (LENGTH, FEATURES), OUTPUTS, per_position=True)

IMAGES = Task("image", (2, 4, 6), OUTPUTS)

SAME = Task("tokens", (LENGTH,), NUM_TOKENS, NUM_TOKENS, per_position=True)

SMALL: dict[str, Any] = {"depth": 2, "width": 12, "heads": 3, "mlp_ratio": 2}


def inputs(task: Task, seed: int = 3, batch: int = BATCH) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    if task.kind == "tokens":
        return torch.randint(task.num_tokens, (batch, *task.shape), generator=made)
    return torch.randn(batch, *task.shape, dtype=torch.float64, generator=made)


def drawn(
    cls: type[Any], values: dict[str, Any], task: Task, dtype: torch.dtype = torch.float64
) -> tuple[Any, Network]:
    """A small network with every parameter off its start."""
    config = cls(**{**SMALL, "activation": "tanh", **values})
    model = build(config, task, dtype)
    made = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                0.05 + 0.4 * torch.randn(parameter.shape, dtype=torch.float64, generator=made)
            )
    return config, model
