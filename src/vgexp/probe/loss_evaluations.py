"""The losses of evaluations within a loop: calls of a watched loss function without gradients."""

from __future__ import annotations

from typing import Any

import torch

from vgexp.probe.steps import Number, floats, read_numbers
from vgexp.records import Rows

_SPLIT = "val"


class Evaluations:
    """Means over the calls between two updates; rows of `evals.csv`."""

    def __init__(self) -> None:
        self._sum: Any = 0.0
        self._num_calls = 0
        self._rows: list[tuple[int, Number]] = []
        self.has_any = False
        """Whether there was one."""

    def see(self, value: Number) -> None:
        """Adds a call."""
        self._sum = self._sum + value
        self._num_calls += 1
        self.has_any = True

    def end(self, step: int) -> None:
        """Ends an evaluation, before an update or at the end of the loop.

        Args:
            step: updates that were done before it.
        """
        if self._num_calls:
            self._rows.append((step, self._sum / self._num_calls))
        self._sum, self._num_calls = 0.0, 0

    def drain(self) -> Rows | None:
        """Returns the rows since the last call; on CUDA it waits for the device."""
        rows, self._rows = self._rows, []
        if not rows:
            return None
        nothing = [None] * len(rows)
        return Rows(
            "evals",
            {
                "step": [step for step, _ in rows],
                "epoch": nothing,
                "split": [_SPLIT] * len(rows),
                "loss": floats(read_numbers([value for _, value in rows]), torch.float64),
                "accuracy": floats(nothing, torch.float64),
            },
        )
