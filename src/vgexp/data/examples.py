"""What a source of data gives: examples as they come, before they are split and standardised."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vgexp.tasks import Task


@dataclass(frozen=True)
class Examples:
    """Raw examples, on the CPU."""

    inputs: Tensor
    """[N, ...] as the task says, float64 (tokens: int64)."""
    targets: Tensor
    """[N] or [N, T], int64: class numbers; [N, K], float64: values."""
    task: Task
    loss: str = "cross_entropy"
    """Name of the loss that the targets are for."""
    test: tuple[Tensor, Tensor] | None = None
    """Inputs and targets of a test split of its own; None: it is split off."""
