"""The dropout between the layers of `nn.RNN`, `nn.LSTM` and `nn.GRU`, drawn once more.

A call's masks depend on the state of the generator before it, and on the order in which entries are
drawn: torch drops a layer's outputs [T, B, H], or those of a packed sequence as they lie. On CUDA,
cuDNN draws from a generator of its own, which shows no state; so whoever draws again compares what
comes out.

Axes: B examples, T steps in time, H units of a layer in all its directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from vgexp.torch_internals import version_of


class Draws(NamedTuple):
    """What a call drew its dropout from, and what came out."""

    state: Tensor
    """Of its device's generator, before the call."""
    y: Tensor
    version: int

    @property
    def is_intact(self) -> bool:
        """Whether what came out was not written into since."""
        return version_of(self.y) == self.version

    def gave(self, y: Tensor) -> bool:
        """Whether a second run has the same output, but for rounding."""
        bound = torch.finfo(self.y.dtype).eps ** 0.5 * float(
            self.y.nan_to_num(0, 0, 0).abs().amax()
        )
        return torch.allclose(y.detach().to(self.y.dtype), self.y, 0.0, bound, equal_nan=True)


def has_dropout(module: nn.RNNBase) -> bool:
    """Whether a call drops anything between its layers."""
    return bool(module.dropout and module.training and module.num_layers > 1)


def generator_state(device: torch.device) -> Tensor:
    """A copy of the state of a device's generator."""
    state: Tensor = (
        torch.get_rng_state() if device.type == "cpu" else _on(device).get_rng_state(device)
    )
    return state


@contextmanager
def drawing_from(state: Tensor, device: torch.device) -> Iterator[None]:
    """Within, the device's generator goes on from a state; afterwards it has its own back."""
    own = generator_state(device)
    _set(state, device)
    try:
        yield
    finally:
        _set(own, device)


def dropped(h_BTH: Tensor, p: float, batch_sizes: Tensor | None) -> Tensor:
    """What a layer hands on: its outputs after the dropout that is drawn next.

    Args:
        batch_sizes: of a packed sequence, whose examples stand by length.
    """
    if batch_sizes is None:
        return F.dropout(h_BTH.transpose(0, 1).contiguous(), p).transpose(0, 1)
    lengths = (batch_sizes[None] > torch.arange(len(h_BTH))[:, None]).sum(1)
    packed = pack_padded_sequence(h_BTH, lengths, batch_first=True)
    padded, _ = pad_packed_sequence(
        PackedSequence(F.dropout(packed.data, p), batch_sizes), batch_first=True
    )
    return padded


def _set(state: Tensor, device: torch.device) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        _on(device).set_rng_state(state, device)


def _on(device: torch.device) -> Any:
    """torch's module of a kind of devices."""
    return torch.get_device_module(device.type)
