"""The losses of evaluations within a loop: calls of a watched loss function without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vgexp.probe.steps import Number, floats, read_numbers
from vgexp.records import Rows

_SPLIT = "val"
_OF_LOGITS = ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits")
_OF_SHARES = ("BCELoss", "binary_cross_entropy")


class Evaluations:
    """Means over the calls between two updates; rows of `evals.csv`."""

    def __init__(self) -> None:
        self._sum: Any = 0.0
        self._right: Any = 0.0
        self._num_calls = 0
        self._rows: list[tuple[int, Number, Number]] = []
        self.has_any = False
        """Whether there was one."""

    def see(self, value: Number, right: Number = None) -> None:
        """Adds a call.

        Args:
            right: the share of its answers that are right; None: it is not known.
        """
        self._sum = self._sum + value
        self._right = None if self._right is None or right is None else self._right + right
        self._num_calls += 1
        self.has_any = True

    def end(self, step: int) -> None:
        """Ends an evaluation, before an update or at the end of the loop.

        Args:
            step: updates that were done before it.
        """
        if self._num_calls:
            right = None if self._right is None else self._right / self._num_calls
            self._rows.append((step, self._sum / self._num_calls, right))
        self._sum, self._right, self._num_calls = 0.0, 0.0, 0

    def drain(self) -> Rows | None:
        """Returns the rows since the last call; on CUDA it waits for the device."""
        rows, self._rows = self._rows, []
        if not rows:
            return None
        nothing = [None] * len(rows)
        return Rows(
            "evals",
            {
                "step": [step for step, *_ in rows],
                "epoch": nothing,
                "split": [_SPLIT] * len(rows),
                "loss": floats(read_numbers([value for _, value, _ in rows]), torch.float64),
                "accuracy": floats(read_numbers([right for *_, right in rows]), torch.float64),
            },
        )


def share_right(function: str, named: Sequence[tuple[str, Tensor]]) -> Number:
    """The share of labels that have the largest score, or of 0 and 1 on whose side the answer is.

    Args:
        function: the name of the loss function.
        named: what it was called with: scores and labels, in this order.

    Returns:
        None where it is no loss of labels; nan where none of them counts. On a device nobody waits.
    """
    if len(named) != 2:
        return None
    (_, output), (_, target) = named
    if not output.is_floating_point() or not output.numel() or not target.numel():
        return None
    if function in (*_OF_LOGITS, *_OF_SHARES):
        if output.shape != target.shape:
            return None
        found = output > (0.0 if function in _OF_LOGITS else 0.5)
        share = (found == (target > 0.5)).double().mean()
        is_label = ((target == 0) | (target == 1)).all()
        right = torch.where(is_label, share, torch.nan)
    else:
        axis = _axis_of_classes(output, target)
        if axis is None:
            return None
        counts = (target >= 0) & (target < output.shape[axis])
        right = ((output.argmax(axis) == target) & counts).sum().double() / counts.sum()
    return float(right) if right.is_cpu else right


def _axis_of_classes(output: Tensor, target: Tensor) -> int | None:
    is_label = not (target.is_floating_point() or target.is_complex())
    if not is_label or target.dtype is torch.bool or output.ndim < 2:
        return None
    if output.shape[:1] + output.shape[2:] == target.shape:
        return 1
    return output.ndim - 1 if output.shape[:-1] == target.shape else None
