"""What a data set that is drawn will need of memory, known before any of it is drawn.

Drawn is in float64 or int64, 8 bytes a number. At the worst moment there are the examples as they
were drawn, once more in the order of their splits, and of inputs that are standardised their
deviations from the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import torch

from vgexp import machine
from vgexp.config import DataConfig, choice

_DRAWN = 8
"""Bytes of a number as it is drawn."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """How many numbers a data set has, and which keys decide it."""

    num_inputs: int
    num_targets: int
    keys: tuple[str, ...]
    num_copies: int = 3
    """How often its inputs are there at the worst moment."""

    @property
    def drawn_bytes(self) -> int:
        """On the CPU, at the worst moment."""
        return _DRAWN * (self.num_copies * self.num_inputs + 2 * self.num_targets)

    def kept_bytes(self, dtype: torch.dtype) -> int:
        """On the device, in the end."""
        return dtype.itemsize * self.num_inputs + _DRAWN * self.num_targets


@singledispatch
def size_of(config: DataConfig) -> Size | None:  # noqa: ARG001
    """The size of a data set that is drawn; None for any other, whose files are there already."""
    return None


def require_memory(config: DataConfig, dtype: torch.dtype, device: torch.device) -> None:
    """Requires room for a data set that is drawn, on the CPU and where it is kept.

    Raises:
        QuestionError: there is none.
    """
    size = size_of(config)
    if size is None:
        return
    what = f"data={choice('data', config)} has inputs of {size.num_inputs:,} numbers and needs"
    *others, last = (f"data.{key}" for key in size.keys)
    remedy = f"a smaller {', '.join(others)} or {last}" if others else f"a smaller {last}"
    machine.require_bytes(size.drawn_bytes, CPU, what, remedy)
    machine.require_bytes(size.kept_bytes(dtype), device, what, remedy)
