"""Weights that `FullyShardedDataParallel` (FSDP1) keeps in flat parameters.

A flat parameter is a vector of the entries of several weights, of which each rank of a group holds
a part. For each weight there is a `FlatWeight` in the tables and plans of a probe. `Members` shows
a model as it is without the wrappers.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vgexp.torch_internals import (
    FlatPart,
    flat_handles,
    flat_kind,
    group_of_flat,
    is_in_flat,
    part_in_flat,
    version_of,
    weights_in_flat,
    without_flat_kind,
)

FLAT = (
    "FullyShardedDataParallel keeps weights as flat pieces, and of some it is not known which: they"
    " have no row. Give the probe the model that FullyShardedDataParallel returned; if it has that,"
    " shard the model with torch.distributed.fsdp.fully_shard instead"
)


class FlatWeight(nn.Parameter):
    """Stands for a weight whose entries are in a flat parameter. It has its shape and no memory.

    `grad` is this rank's part of the gradient, a vector: empty on a rank that holds none of the
    weight. Where each rank holds the whole (`NO_SHARD`), it has the weight's shape. The parts
    change places as passes run, so they are looked up each time.
    """

    _handle: Any
    _place_in_flat: int

    def __new__(cls, handle: Any, place: int, shape: tuple[int, ...]) -> FlatWeight:
        empty = torch.empty(shape, dtype=handle.flat_param.dtype, device="meta")
        made: FlatWeight = super().__new__(cls, empty, False)
        # Weakly: this object is kept beside the handle, for as long as that lives.
        made._handle, made._place_in_flat = weakref.ref(handle), place
        return made

    def __init__(self, *_: object) -> None: ...

    def part(self) -> FlatPart:
        """Where its entries are now."""
        return part_in_flat(self._handle(), self._place_in_flat)

    def local(self) -> Tensor:
        """This rank's entries, in the form of `grad`."""
        part = self.part()
        return self._formed(part.whole, part)

    def _formed(self, whole: Tensor, part: FlatPart) -> Tensor:
        own = whole.detach()[part.start : part.start + part.length]
        return own.view(self.shape) if self.group is None else own

    @property
    def held(self) -> nn.Parameter:
        """The parameter that an optimizer has, of this weight or of several."""
        part = self.part()
        return part.flat if part.original is None else part.original

    @property
    def group(self) -> tuple[Any, torch.device] | None:
        """The ranks that hold its parts, and the device on which they exchange; None: each holds
        the whole."""
        return group_of_flat(self._handle())

    @property
    def grad(self) -> Tensor | None:  # type: ignore[override]
        part = self.part()
        whole = part.flat.grad
        if part.original is not None and part.length:
            whole = part.original.grad
            return None if whole is None else whole.detach()
        if whole is None:
            return None
        if whole.numel() != part.whole.numel():
            raise RuntimeError("the gradients of the ranks were not added up (no_sync)")
        return self._formed(whole, part)

    @property
    def requires_grad(self) -> bool:  # type: ignore[override]
        return self.held.requires_grad

    @property
    def _version(self) -> int:  # type: ignore[override]
        return version_of(self.held)


_KNOWN: WeakKeyDictionary[Any, list[FlatWeight]] = WeakKeyDictionary()
"""Handle -> what stands for its weights, so that all parts of a probe have the same objects."""


def held_as(p: Tensor) -> Tensor:
    """The parameter that an optimizer has in the place of one of a model."""
    return p.held if isinstance(p, FlatWeight) else p


def leaf_of(p: Tensor) -> Tensor:
    """The leaf of autograd's graph that the gradient of a parameter comes to."""
    return p.part().flat if isinstance(p, FlatWeight) else p


def is_in_parts(p: Tensor) -> bool:
    """Whether a parameter is in a flat one of which each rank holds a part."""
    return isinstance(p, FlatWeight) and p.group is not None


class Members:
    """The modules and parameters of a model, by the names that they have without FSDP1."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._wrapper = flat_kind()
        self._in_flat: dict[int, dict[str, FlatWeight]] = {}
        for handle in flat_handles(model):
            try:
                self._add(handle)
            except AttributeError:  # a torch that does not tell: `has_lost` will
                continue

    def _add(self, handle: Any) -> None:
        every = weights_in_flat(handle)
        if handle not in _KNOWN:
            _KNOWN[handle] = [FlatWeight(handle, i, shape) for i, (shape, _) in enumerate(every)]
            _ = [weight.part() for weight in _KNOWN[handle]]
        for weight, (_, places) in zip(_KNOWN[handle], every, strict=True):
            for module, name in places:
                self._in_flat.setdefault(id(module), {})[name] = weight

    @property
    def has_lost(self) -> bool:
        """Whether the model has flat parameters of which it is not known what is in them."""
        known = {id(w.held) for own in self._in_flat.values() for w in own.values()}
        return any(is_in_flat(p) and id(p) not in known for p in self._model.parameters())

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """As `named_modules`."""
        for name, module in self._model.named_modules():
            if self._wrapper is None:
                yield name, module
            elif not isinstance(module, self._wrapper):
                yield without_flat_kind(name), module

    def own(self, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that a module has itself."""
        in_flat = self._in_flat.get(id(module), {})
        yield from in_flat.items()
        for name, p in module.named_parameters(recurse=False):
            if name not in in_flat and not (self._wrapper is not None and is_in_flat(p)):
                yield name, p

    def within(self, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of a module and of those in it, each once."""
        if self._wrapper is None:
            yield from module.named_parameters()
            return
        seen: set[int] = set()
        for name, p in self._all(module):
            if id(p) not in seen:
                seen.add(id(p))
                yield name, p

    def parameters(self, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of the model, as `named_parameters`."""
        if self._wrapper is None:
            yield from self._model.named_parameters(remove_duplicate=remove_duplicate)
        elif remove_duplicate:
            yield from self.within(self._model)
        else:
            yield from self._all(self._model)

    def _all(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        for name, module in model.named_modules():
            if self._wrapper is not None and isinstance(module, self._wrapper):
                continue
            for own_name, p in self.own(module):
                yield f"{without_flat_kind(name)}.{own_name}".lstrip("."), p
