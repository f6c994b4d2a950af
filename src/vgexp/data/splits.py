"""The splits of a user's data: training, and what there is of validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vgexp.data.lazy import KEY, LazySplit, inputs_of, targets_of
from vgexp.tasks import Task

PURPOSES = ("training", "validation", "test")


@dataclass(frozen=True)
class Part:
    """A data set, and which of its examples are for one purpose; `tensors` where it holds such."""

    purpose: str
    dataset: Any
    rows: Tensor
    targets: Tensor
    largest_token: int
    tensors: tuple[Tensor, Tensor] | None
    bad: tuple[int, ...] = ()
    """Numbers of its examples that hold nan or inf, of those that were read."""


@dataclass(frozen=True)
class UserSplits:
    """A user's data, split already."""

    parts: tuple[Part, ...]
    """Training, and what there is of validation and test."""
    task: Task
    loss: str

    @property
    def remarks(self) -> tuple[str, ...]:
        """What somebody should know of the examples, who trains on them nevertheless."""
        return tuple(
            f"{KEY}: of {len(part.rows):,} examples for {part.purpose},"
            f" {len(part.bad):,} hold{'s' if len(part.bad) == 1 else ''} nan or inf:"
            f" {'' if len(part.bad) == 1 else 'the first is '}example {part.bad[0]}"
            for part in self.parts
            if part.bad
        )

    def splits(self, dtype: torch.dtype) -> list[LazySplit | tuple[Tensor, Tensor]]:
        """Training, validation and test: inputs and targets where they are in memory."""
        is_tokens = self.task.kind == "tokens"
        nothing = torch.empty(0, *self.task.shape, dtype=torch.int64 if is_tokens else dtype)
        found: dict[str, LazySplit | tuple[Tensor, Tensor]] = {}
        for part in self.parts:
            targets = targets_of(part.targets, dtype)
            if part.tensors is None:
                made = LazySplit(part.dataset, part.rows, targets, is_tokens, dtype)
                found[part.purpose] = made
            else:
                inputs = part.tensors[0].index_select(0, part.rows)
                found[part.purpose] = inputs_of(inputs, is_tokens, dtype), targets
        return [found.get(purpose, (nothing, targets[:0])) for purpose in PURPOSES]
