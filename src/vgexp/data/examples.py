"""What a source of data gives: examples as they come, before they are split and standardised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vgexp.errors import impossible
from vgexp.tasks import Task

Pair = tuple[Tensor, Tensor]
"""Inputs and targets of the same examples, in the same order."""


@dataclass(frozen=True)
class Examples:
    """Raw examples, on the CPU.

    A split of its own (`val`, `test`) is taken as it is; the others are split off at random.
    """

    inputs: Tensor
    """[N, ...], as many numbers as the task says: float64, or uint8 as images are stored (they
    become floating as they are standardised); tokens: int64."""
    targets: Tensor
    """[N] or [N, T], int64: class numbers; [N, K], float64: values."""
    task: Task
    loss: str = "cross_entropy"
    """Name of the loss that the targets are for."""
    val: Pair | None = None
    """Inputs and targets of a validation split of its own; None: it is split off."""
    test: Pair | None = None
    """Inputs and targets of a test split of its own; None: it is split off."""
    channel_axis: int | None = None
    """Axis of `inputs` that counts channels, each with a mean and a standard deviation; None: that
    of images, and of others one channel."""


def num_held(val_fraction: float, num_examples: int, num_splits: int) -> int:
    """Examples held out for each of `num_splits` splits: round(val_fraction num_examples).

    Raises:
        QuestionError: none is left for training.
    """
    held = round(val_fraction * num_examples)
    if num_splits * held >= num_examples:
        raise impossible(
            "data.val_fraction",
            val_fraction,
            f"a share that leaves some of the {num_examples} examples for training",
        )
    return held


class AnySplit(Protocol):
    """Examples of one purpose, in memory or read when they are asked for."""

    @property
    def targets(self) -> Tensor:
        """[N, ...]: every target, on the device of the batches."""
        ...

    def __len__(self) -> int: ...

    def take(self, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some examples, by their numbers."""
        ...

    def part(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of examples in a row."""
        ...

    def to(self, device: torch.device) -> AnySplit:
        """The same on a device."""
        ...

    def flattened(self) -> AnySplit:
        """The same with each example's input as a vector of features."""
        ...
