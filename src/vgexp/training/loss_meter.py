"""Describes what the loss gets in a run with a user's model or loss: rows of `loss.csv`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import final

import torch
from torch import Tensor

from vgexp.losses import Loss
from vgexp.probe.loss import RESULT, Argument, describe, rows_of
from vgexp.records import Rows


@final
class LossMeter:
    """Sees the calls of a loss while it is armed; of an update's calls the first is described."""

    table = "loss"

    def __init__(self, loss: Loss) -> None:
        self._mean = loss.mean
        self._name = _name_of(loss.mean)
        self._is_armed = False
        self._described: list[Argument] = []
        self.loss = dataclasses.replace(loss, mean=self._see)
        """The same loss, which has to be called instead."""

    def arm(self) -> None:
        """Begins to see calls, and forgets those that no step has ended."""
        self._described, self._is_armed = [], True

    def disarm(self) -> None:
        """Sees no more calls."""
        self._described, self._is_armed = [], False

    def take(
        self,
        step: int,
        num_examples: float,  # noqa: ARG002
        loss_scale: Tensor | float,  # noqa: ARG002
    ) -> Callable[[], Rows] | None:
        """Ends the step; what was described depends neither on N nor on the loss scale."""
        described, self._described = [(step, each) for each in self._described], []
        return partial(_rows, described) if described else None

    def _see(self, outputs: Tensor, targets: Tensor) -> Tensor:
        result = self._mean(outputs, targets)
        if self._is_armed and not self._described and result.requires_grad:
            named = {"outputs": outputs, "targets": targets, RESULT: result}
            with torch.no_grad():
                self._described = [describe(self._name, key, x) for key, x in named.items()]
        return result


def _rows(described: list[tuple[int, Argument]]) -> Rows:
    rows = rows_of(described)
    assert rows is not None
    return rows


def _name_of(function: Callable[..., Tensor]) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__).lstrip("_")
