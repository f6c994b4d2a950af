"""Batches: an endless shuffled stream for training, one ordered pass for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.data.examples import AnySplit
from vgexp.errors import impossible

Batch = list[tuple[Tensor, Tensor]]
"""The micro-batches of one update: inputs and targets of B examples."""


@final
class Batches:
    """Endless batches: each epoch a new permutation, its last partial batch dropped.

    Raises:
        QuestionError: the split has fewer examples than one batch.
    """

    def __init__(self, split: AnySplit, batch_size: int, generator: torch.Generator) -> None:
        if batch_size > len(split):
            raise impossible(
                "data.batch_size",
                batch_size,
                f"at most {len(split)}, the number of training examples",
            )
        self._split = split
        self._batch_size = batch_size
        self._generator = generator
        self._epoch_start = generator.get_state()
        self._position = 0
        self._order_N = torch.empty(0, dtype=torch.int64)
        self.per_epoch = len(split) // batch_size
        """Batches in an epoch."""
        self.epoch = 0
        """Epochs complete before the next batch."""

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch: inputs [B, ...] and targets [B, ...]."""
        if self._position == 0:
            self._shuffle()
        start = self._position * self._batch_size
        rows_B = self._order_N[start : start + self._batch_size]
        self._position += 1
        if self._position == self.per_epoch:
            self._position = 0
            self.epoch += 1
        return self._split.take(rows_B)

    def peek(self, num_batches: int) -> Batch:
        """The batches that `next` gives next, one after another."""
        state = self.state_dict()
        batches = [self.next() for _ in range(num_batches)]
        self.load_state_dict(state)
        return batches

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands; small, for the epoch's permutation is drawn again from it."""
        between = self._position == 0
        return {
            "epoch": self.epoch,
            "position": self._position,
            "generator": self._generator.get_state() if between else self._epoch_start,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with exactly the batches that followed when `state` was taken."""
        self.epoch, self._position = state["epoch"], state["position"]
        self._generator.set_state(state["generator"])
        if self._position > 0:
            self._shuffle()

    def _shuffle(self) -> None:
        self._epoch_start = self._generator.get_state()
        order_N = torch.randperm(len(self._split), generator=self._generator)
        # To the device once an epoch: a batch then costs two look-ups there.
        self._order_N = metrics.to_device(order_N, self._split.targets.device)


def full(split: AnySplit, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The whole split once, in order, nothing dropped; no batch of an empty split."""
    for start in range(0, len(split), batch_size):
        yield split.part(start, start + batch_size)
