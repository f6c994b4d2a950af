"""A model of ours as a chain of maps, a main-path layer each: what Jacobians are taken of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgexp.skips import Combine

Map = Callable[[Tensor], Tensor]
"""Of a batch; each example's value depends on that example alone, but for batch norm."""


@dataclass(frozen=True)
class Fork:
    """after(path(x) + branch(x)): where a gradient comes back by two ways."""

    path: Map
    branch: Map
    after: Map

    def __call__(self, x: Tensor) -> Tensor:
        return self.after(self.path(x) + self.branch(x))


@dataclass(frozen=True)
class Stage:
    """One main-path layer: from what the layer before hands on to what this one does."""

    name: str
    """The weight's or, of a block, the block's."""
    layer: int
    run: Map
    forks: tuple[Fork, ...] = ()
    """The same map, one fork after another; empty: nothing is added to a path."""


@dataclass(frozen=True)
class Chain:
    """Modules one after another."""

    modules: Sequence[Callable[[Tensor], Tensor]]

    def __call__(self, x: Tensor) -> Tensor:
        for module in self.modules:
            x = module(x)
        return x


@dataclass(frozen=True)
class Joined:
    """after(skip(path(x), branch(h), h)), h = before(x)."""

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
        """One, where the skip carries its path as it is."""
        return (Fork(self.path, self._added, self.after),) if self.skip.keeps_path else ()

    def _added(self, x: Tensor) -> Tensor:
        """What the skip adds to the path."""
        h = self.before(x)
        branch = self.branch(h)
        added: Tensor = self.skip(torch.zeros_like(branch), branch, h)
        return added


def chain(*modules: nn.Module | Map) -> Chain:
    """The map of some modules; of none, the identity."""
    return Chain(modules)
