"""Named generators: each use of randomness draws from its own stream, seeded from one number.

Modules are made here that draw nothing.
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
"""The kind of a module."""


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one named use (`init`, `order`, `noise`, `split`), independent of others.

    The stream depends on `seed` and `name` only: drawing more from one leaves the others alone.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def allocate(on_meta: Module) -> Module:
    """Gives a module memory on the default device; its parameters are not set.

    A module that is made on the meta device draws no random number, however torch begins it.
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
    """torch's global generators, which dropout draws from, lent to one run and its stream.

    Between `begin` and `end` they are the run's; before and after, whoever runs it has their own.

    Args:
        device: whose generator is lent beside the CPU's.
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
        """Lends the global generators to the stream; again is harmless."""
        if self._outside is None:
            self._outside = self._global()
            self._set_global(self._state)

    def end(self) -> None:
        """Gives them back as they were; again is harmless."""
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
        """Where the stream stands."""
        return self._state if self._outside is None else self._global()

    def load_state_dict(self, state: list[Tensor]) -> None:
        """Goes on from there."""
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
