"""Makes the generators of a run: each use of randomness has a stream of its own from one seed.

It also makes modules without drawing numbers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
"""The class of a module."""


def generator(seed: int, name: str) -> torch.Generator:
    """Makes the CPU generator of one named use (`init`, `order`, `noise`, `split`).

    The stream depends on `seed` and `name` only: drawing more from one leaves the others alone.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def allocate(on_meta: Module) -> Module:
    """Gives a module of the meta device memory on the default one; its parameters are not set.

    A module that is made on the meta device draws no random number, whatever its own init is.
    """
    # torch 2.6 does not count `with torch.device(...)` as a change of the default device,
    # but creates tensors there.
    return on_meta.to_empty(device=torch.empty(0).device)


@contextmanager
def without_draws() -> Iterator[None]:
    """Within, what is drawn from global generators is drawn again afterwards.

    Those are Python's, numpy's, and torch's on the CPU and on the CUDA devices in use.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    # To ask CUDA for a state would start it.
    is_on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if is_on_cuda else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


class GlobalStream:
    """Has torch's global generators, which dropout draws from, draw a stream of a run's own.

    They draw it between `begin` and `end`. Outside of these, the caller's own numbers go on.

    Args:
        device: its generator is used as well as the CPU's.
    """

    def __init__(self, seed: int, name: str, device: torch.device) -> None:
        self._device = device
        start = generator(seed, name)
        self._state = [start.get_state()]
        if device.type == "cuda":
            on_device = torch.Generator(device).manual_seed(start.initial_seed())
            self._state.append(on_device.get_state())
        self._outside: list[Tensor] | None = None

    def begin(self) -> None:
        """Starts the stream in the global generators. It may be called twice."""
        if self._outside is None:
            self._outside = self._global()
            self._set_global(self._state)

    def end(self) -> None:
        """Restores the caller's states of the generators. It may be called twice."""
        if self._outside is not None:
            self._state = self._global()
            self._set_global(self._outside)
            self._outside = None

    @contextmanager
    def lend(self) -> Iterator[None]:
        """Within, the global generators are the stream's."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def state_dict(self) -> list[Tensor]:
        """The state of the stream."""
        return self._state if self._outside is None else self._global()

    def load_state_dict(self, state: list[Tensor]) -> None:
        """Continues from a state."""
        self._state = state
        if self._outside is not None:
            self._set_global(state)

    def _global(self) -> list[Tensor]:
        on_cuda = self._device.type == "cuda"
        here = [torch.cuda.get_rng_state(self._device)] if on_cuda else []
        return [torch.get_rng_state(), *here]

    def _set_global(self, state: list[Tensor]) -> None:
        torch.set_rng_state(state[0].cpu())
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state[1].cpu(), self._device)
