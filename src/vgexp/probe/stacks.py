"""Says which tensors are stacked and reduced together: an operation costs more than a copy
of a small tensor.
"""

from __future__ import annotations

from torch import Tensor

HOST_ENTRIES = 2**17
"""The most entries of a stack: half a megabyte in float32, which stays in a core's cache."""
HOST_WAITING = 2**20
"""The most entries that wait to be stacked: tensors of several shapes, of which each shape fills
stacks of its own."""
DEVICE_ENTRIES = 2**24
"""The same on CUDA, where a launch costs more than all but the largest copies."""


def most_entries(x: Tensor) -> int:
    """The most entries of a stack on the device of a tensor."""
    return HOST_ENTRIES if x.is_cpu else DEVICE_ENTRIES


def most_waiting(x: Tensor) -> int:
    """The most entries that wait to be reduced on the device of a tensor."""
    return HOST_WAITING if x.is_cpu else DEVICE_ENTRIES


def is_large(x: Tensor) -> bool:
    """Whether so few tensors like `x` fill a stack that many should not be kept for one."""
    return x.numel() >= (HOST_ENTRIES // 8 if x.is_cpu else DEVICE_ENTRIES // 128)


def most_together(x: Tensor) -> int:
    """How many tensors like `x` fit into one stack."""
    return max(1, most_entries(x) // max(1, x.numel()))
