"""Finds terms of a loss that were turned into numbers, so that no gradient comes back by them.

A term that `.item()`, `float()`, `.detach()` or `torch.tensor` makes a number of may be logged, or
be a weight; it is part of the loss where it is added to a number that has a gradient. It is taken
for that where, in two calls, what is added is the same multiple of the term, whose own value
changed, and autograd's graph of the loss does not lead to it.
"""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from vgexp.probe.functions import may_take_fast_path
from vgexp.probe.graph import Place, mixes, place_of, walk
from vgexp.torch_internals import enter_mode, leave_mode

_TURNING = frozenset(
    map(id, (Tensor.item, Tensor.__float__, Tensor.detach, Tensor.tolist, torch.detach))
)
_COPYING = frozenset(map(id, (torch.tensor, torch.as_tensor)))
_ADDING = frozenset(
    map(
        id,
        (
            *(torch.add, torch.sub, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__),
            *(Tensor.__iadd__, Tensor.sub, Tensor.sub_, Tensor.__sub__, Tensor.__rsub__),
            *(torch.sum, torch.stack, Tensor.__isub__),
        ),
    )
)
_MOST_TERMS = 16
_MOST_NODES = 3000
_SAME = 1e-4
"""Relative difference up to which what is added is the same multiple of a term."""
_MOVED = 1e-2
"""Relative difference from which on a term changed between two calls."""


class Call(NamedTuple):
    """What a call of a loss function turned into numbers, and what it added."""

    terms: tuple[float, ...]
    """Values of terms that have a gradient, became numbers, and are not in the loss's graph."""
    added: tuple[float, ...]
    """Numbers that were added to one with a gradient."""


class NumberWatch(TorchFunctionMode):
    """Sees the calls of torch's functions within one call of a loss function.

    Not those within frozen attention in evaluation mode, as of a network that compares images:
    torch asks there whether a mode is on, and gives other last bits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._turned: list[tuple[float, Place]] = []
        self._added: list[float] = []
        self._suspended_by: nn.Module | None = None
        self._thread = 0
        self._handles: list[Any] = []

    def begin(self) -> None:
        """Begins to see calls."""
        self._thread = threading.get_ident()
        self._handles = [
            register_module_forward_pre_hook(self._before_module),
            register_module_forward_hook(self._after_module, always_call=True),
        ]
        enter_mode(self)

    def end(self) -> None:
        """Sees no more calls; it may be called again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._suspended_by = None
        leave_mode(self)

    def _before_module(self, module: nn.Module, _args: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != self._thread:
            return
        if self._suspended_by is None and may_take_fast_path(module):
            self._suspended_by = module
            leave_mode(self)

    def _after_module(self, module: nn.Module, _args: Any, _output: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != self._thread:
            return
        if self._suspended_by is module:
            self._suspended_by = None
            enter_mode(self)

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        try:
            self._see(id(function), args)
        except Exception:  # nothing is told of what cannot be looked at
            return result
        return result

    def take(self, loss: Tensor) -> Call:
        """Ends the call; what was turned into a number and is not behind the loss."""
        turned, self._turned = self._turned[:_MOST_TERMS], []
        added, self._added = self._added[:_MOST_TERMS], []
        lost = _not_behind(loss, [place for _, place in turned]) if turned and added else []
        terms = dict.fromkeys(value for value, place in turned if place in lost)
        return Call(tuple(terms), tuple(added))

    def _see(self, function: int, args: Any) -> None:
        if function in _TURNING or function in _COPYING:
            x = args[0] if args else None
            # Of those on other devices reading the number would wait.
            if isinstance(x, Tensor) and x.numel() == 1 and x.is_cpu:
                place = place_of(x)
                self._turned += [] if place is None else [(float(x.detach()), place)]
        elif function in _ADDING:
            given = args[0] if args and isinstance(args[0], tuple | list) else args[:2]
            # Of many entries, the number may be what scores are shifted by, as their largest.
            sizes = [x.numel() for x in given if isinstance(x, Tensor) and x.requires_grad]
            if sizes and max(sizes) == 1:
                self._added += [number for x in given if (number := _number_in(x)) is not None]


def _number_in(x: object) -> float | None:
    """A number without a gradient; None of 0, which begins sums, and of all else."""
    if isinstance(x, Tensor):
        if x.requires_grad or x.numel() != 1 or not x.is_cpu:
            return None
        x = float(x.detach())
    is_number = isinstance(x, int | float) and not isinstance(x, bool)
    return float(x) if is_number and x and math.isfinite(x) else None  # type: ignore[arg-type]


def _not_behind(loss: Tensor, places: list[Place]) -> list[Place]:
    """The places to which no path leads from a loss; none where nobody knows."""
    start, lost = place_of(loss), set(places)
    if start is None:
        return []
    wanted = set(places)
    for count, place in enumerate(walk([start], lambda p: p in wanted or mixes(p[0]))):
        lost.discard(place)
        if not lost or count == _MOST_NODES:
            return []
    return [*lost]


def share_added(before: Call, now: Call, loss: float) -> float | None:
    """The share of a loss that is a term as a number; None where two calls show none."""
    if len(before.terms) != len(now.terms) or len(before.added) != len(now.added):
        return None
    pairs = [*zip(before.terms, now.terms, strict=True)]
    if len(pairs) > 1:
        pairs.append((sum(before.terms), sum(now.terms)))
    shares = [0.0]
    for first, second in pairs:
        if not abs(second - first) > _MOVED * abs(first) > 0:
            continue
        for one, two in zip(before.added, now.added, strict=True):
            if math.isclose(one / first, two / second, rel_tol=_SAME) and second and loss:
                shares.append(min(1.0, abs(two / loss)))
    return max(shares) or None
