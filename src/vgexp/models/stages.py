"""A model as a chain of maps, one for each main-path layer, for Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgexp.skips import Combine

Map = Callable[[Tensor], Tensor]
"""A map of a batch; each example's value depends on that example alone, except under batch norm."""


@dataclass(frozen=True)
class Fork:
    """Computes after(path(x) + branch(x)), through which a gradient returns by two ways."""

    path: Map
    branch: Map
    after: Map

    def __call__(self, x: Tensor) -> Tensor:
        return self.after(self.path(x) + self.branch(x))


@dataclass(frozen=True)
class Stage:
    """One main-path layer: it maps what the layer before hands on to what it hands on itself."""

    name: str
    """Name of the weight or, for a block, of the block."""
    layer: int
    run: Map
    forks: tuple[Fork, ...] = ()
    """The same map as a chain of forks; empty: nothing is added to a path."""


@dataclass(frozen=True)
class Chain:
    """Applies modules one after another."""

    modules: Sequence[Callable[[Tensor], Tensor]]

    def __call__(self, x: Tensor) -> Tensor:
        for module in self.modules:
            x = module(x)
        return x


@dataclass(frozen=True)
class Joined:
    """Computes after(skip(path(x), branch(h), h)) with h = before(x)."""

    before: Map
    branch: Map
    path: Map
    skip: Combine
    after: Map

    def __call__(self, x: Tensor) -> Tensor:
        h = self.before(x)
        z: Tensor = self.skip(self.path(x), self.branch(h), h)
        return self.after(z)

    @property
    def forks(self) -> tuple[Fork, ...]:
        """One fork, if the skip keeps its path as it is."""
        return (Fork(self.path, self._added, self.after),) if self.skip.keeps_path else ()

    def _added(self, x: Tensor) -> Tensor:
        """Returns what the skip adds to the path."""
        h = self.before(x)
        branch = self.branch(h)
        added: Tensor = self.skip(torch.zeros_like(branch), branch, h)
        return added


def chain(*modules: nn.Module | Map) -> Chain:
    """Makes the map that applies modules one after another; without modules, the identity."""
    return Chain(modules)
