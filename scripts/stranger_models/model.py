"""A model that vgexp did not write, a batch for it, and what is known of its structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

Update = Callable[[nn.Module], Tensor]
"""Calls the model on one fixed batch, and returns the mean loss."""


@dataclass(frozen=True)
class Stranger:
    """One model, and what a reader of its source says of it.

    `make` returns the model, and the function that calls it on a fixed batch of `NUM_EXAMPLES`
    examples. It is called after `torch.manual_seed`, and draws the batch itself.
    """

    name: str
    make: Callable[[], tuple[nn.Module, Update]]
    blocks: str = ""
    """A regular expression that matches the names of its residual blocks, and no other module."""
    readouts: tuple[str, ...] = ()
    """The names of the weights of its read-outs."""


NUM_EXAMPLES = 4
IMAGE_SIZE = 64
NUM_CLASSES = 5
