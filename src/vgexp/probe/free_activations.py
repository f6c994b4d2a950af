"""Finds the weight that each activation of a user's model belongs to, and keeps its u and h.

An activation is a module of a known class, a function of torch, or a module whose forward pass is
an elementwise formula. It belongs to the weight whose z it reads, directly or through what lies
between (a norm, a sum, a view). Of two activations in a row the first is the weight's own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vgexp.probe import functional, moments
from vgexp.probe.functions import FunctionCall, FunctionWatcher
from vgexp.probe.micro_batches import MicroBatches
from vgexp.probe.passes import OVERWRITTEN, Pass
from vgexp.probe.plan import ProbePlan
from vgexp.torch_internals import backward_task, version_of
from vgexp.watch import Slope

Do = Callable[..., None]
Site = tuple[nn.Module, bool, Do]
"""A module, whether the hook is called before it, and what the hook does."""


class _Found(NamedTuple):
    """An activation of a row, before it is computed."""

    current: Pass
    row: int
    slope: Slope
    x: weakref.ref[Tensor]
    """What it reads."""
    u: Tensor | None
    """The same, kept; None where phi' is a function of y."""


class _Gate(NamedTuple):
    """A sigmoid of which it is not known yet whether it gates its own input, as in a silu."""

    found: _Found
    y: weakref.ref[Tensor]
    kept: Tensor
    version: int


@dataclass
class _Call:
    """A call of a module that may be a formula, while it runs."""

    module: nn.Module
    found: _Found
    """With a slope that says nothing, until the module has run."""
    node: Any
    """What made the input."""
    within: list[tuple[_Found, Tensor, Tensor]] = field(default_factory=list)
    """The activations in it, with their output and a copy of that."""


class FreeActivations:
    """The activations of a user's model, of which nobody said whose they are.

    In the first step all functions and formulas are looked at; later, those that were found to be
    activations of weights.
    """

    def __init__(self, model: nn.Module, plan: ProbePlan, passes: MicroBatches) -> None:
        self._plan = plan
        self._passes = passes
        self._known = {id(module) for module, row, _ in plan.activations if row is None}
        self._parameters = {id(p) for p in model.parameters()}
        formulas = functional.formulas_of(model) if plan.owners else ()
        self._formulas = [module for module in formulas if id(module) not in self._known]
        self._slopes: dict[int, Slope] = {}
        """Of the modules that were found to be formulas."""
        self._running: list[_Call] = []
        self._gate: _Gate | None = None
        self._is_learning = True
        self._is_asking = False
        """Whether a module is called once more, of which nothing is to be seen."""
        self._are_functions_needed = False
        self.unregistered: dict[int, str] = {}
        """Weights that were used and are none of the model's parameters: by what, and shapes."""

    # ------------------------------------------------------------ where to look

    def sites(self) -> Iterator[Site]:
        """Lists where to set which hook."""
        for module, row, slope in self._plan.activations:
            if row is None and slope.from_output is not None:
                yield module, False, partial(self._after_of_output, slope)
            elif row is None:
                waiting: list[_Found | None] = []
                yield module, True, partial(self._before, slope, waiting)
                yield module, False, partial(self._after, waiting)
        for module in self._formulas:
            yield module, True, self._enter
            yield module, False, self._leave

    def watch(self, watcher: FunctionWatcher) -> None:
        """Asks to see the calls of functions."""
        if self._plan.owners:
            watcher.watch(functional.FUNCTIONS, self._see)
            watcher.watch(functional.PRODUCTS, self._see_product)
            watcher.watch(functional.WEIGHT_USES, self._see_weight)

    def end_learning(self, watcher: FunctionWatcher) -> None:
        """Ends the first step: what was of no use is not looked at any more."""
        if not self._is_learning:
            return
        self._is_learning = False
        self._formulas = [module for module in self._formulas if id(module) in self._slopes]
        watcher.unwatch(self._see_weight)
        if not self._are_functions_needed:
            watcher.unwatch(self._see)
            watcher.unwatch(self._see_product)

    # ------------------------------------------------------------ whose it is

    def name(self, current: Pass, z: Tensor, row: int) -> None:
        """Remembers whose z a tensor is."""
        self.settle()
        current.name(z, row)
        current.last_row, current.last_shape = row, z.shape
        current.num_named += 1
        functional.tag(z, current.mark, current.num_named, row)

    def settle(self) -> None:
        """Keeps what was held back until it was known what it is."""
        gate, self._gate = self._gate, None
        if gate is None:
            return
        current, row = gate.found.current, gate.found.row
        if version_of(gate.kept) == gate.version:
            _keep(gate.found, gate.kept)
            return
        for quantity in moments.QUANTITIES["hy"]:
            current.lost[(quantity, row)] = OVERWRITTEN

    def drop(self) -> None:
        """Forgets the current step."""
        self._gate = None
        self._running.clear()

    def drop_calls(self) -> None:
        """Forgets calls of modules that were left by an error."""
        self._running.clear()

    def _find(
        self, x: object, slope: Slope, *, is_function: bool = False, copies: bool = False
    ) -> _Found | None:
        """The row whose activation reads `x`, if it has no activation yet in this pass."""
        current = self._passes.current(None, x) if isinstance(x, Tensor) else None
        if current is None or not isinstance(x, Tensor):
            return None
        row = current.row_of(x)
        if row is None and x.requires_grad:
            row = functional.find_row(x, current.mark)
        elif row is None and backward_task() == -1:
            # Nothing before it is trained, so that no graph tells where it comes from.
            is_like_z = x.shape == current.last_shape
            row = current.last_row if is_like_z or not is_function else None
        if row is None or not _is_free(current, row):
            return None
        kept = None
        if slope.from_output is None:
            kept = x.detach().clone() if copies else x.detach()
        return _Found(current, row, slope, weakref.ref(x), kept)

    def _offer(self, found: _Found, y: Tensor, kept: Tensor) -> bool:
        """Keeps an activation if its row has none yet; within a formula, only in the end."""
        if self._running:
            u = None if found.u is None else found.u.clone()
            self._running[-1].within.append((found._replace(u=u), y, kept.clone()))
            return False
        if not _is_free(found.current, found.row):
            return False
        _count(found, 1)
        if found.slope is functional.SIGMOID:
            self.settle()
            kept = kept.detach()
            self._gate = _Gate(found, weakref.ref(y), kept, version_of(kept))
        else:
            _keep(found, kept)
        return True

    # ------------------------------------------------------------ modules of known classes

    def _after_of_output(
        self, slope: Slope, _: nn.Module, args: tuple[Any, ...], y: Tensor
    ) -> None:
        # One that works in place returns its input, which is known by what it is.
        found = self._find(args[0], slope)
        if found is not None:
            self._offer(found, y, y)

    def _before(
        self, slope: Slope, waiting: list[_Found | None], _: nn.Module, args: tuple[Any, ...]
    ) -> None:
        # A copy, since the module may work in place.
        waiting.append(self._find(args[0], slope, copies=True))

    def _after(self, waiting: list[_Found | None], _: nn.Module, _args: Any, y: Tensor) -> None:
        found = waiting.pop() if waiting else None
        if found is not None:
            self._offer(found, y, y)

    # ------------------------------------------------------------ functions

    def _see(self, call: FunctionCall) -> Callable[[Tensor], None] | None:
        if self._is_asking:
            return None
        self.settle()
        if id(call.module) in self._known:
            return None
        slope = functional.slope_of_call(call)
        if slope is None:
            return None
        with_copy = functional.is_in_place(call)
        with torch.enable_grad():
            x = functional.input_of(call)
            found = self._find(x, slope, is_function=True, copies=with_copy)
        return None if found is None else partial(self._after_function, found)

    def _after_function(self, found: _Found, y: Tensor) -> None:
        if self._offer(found, y, y):
            self._are_functions_needed = True

    def _see_product(self, call: FunctionCall) -> Callable[[Tensor], None] | None:
        """Finds out whether a sigmoid gates what it reads: then both together are a silu."""
        gate = self._gate
        if gate is None or len(call.args) < 2:
            return None
        y = gate.y()
        others = [x for x in call.args[:2] if x is not y and isinstance(x, Tensor)]
        if y is None or len(others) != 1 or not any(x is y for x in call.args[:2]):
            self.settle()
            return None
        (other,) = others
        found = gate.found
        if other is found.x():
            self._gate = None
            self._are_functions_needed = True
            u = other.detach().clone()
            return partial(_keep, found._replace(slope=functional.SILU, u=u))
        if found.current.row_of(other) == found.row:
            # A formula of z: what it is as a whole is not known.
            self._gate = None
            self._are_functions_needed = True
            _count(found, -1)
            return None
        self.settle()
        return None

    def _see_weight(self, call: FunctionCall) -> None:
        weight = functional.weight_of(call)
        if weight is None or id(weight) in self._parameters:
            return
        # `fully_shard` puts whole weights in the place of their parts while a module runs.
        if not any(weight is p for p in call.module.parameters()):
            name = getattr(call.function, "__name__", "a function")
            self.unregistered[id(weight)] = f"{list(weight.shape)} in {name}"

    # ------------------------------------------------------------ formulas

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        found = self._find(args[0], functional.UNKNOWN, copies=True) if len(args) == 1 else None
        if found is not None:
            self._running.append(_Call(module, found, functional.node_of(args[0])))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], y: object) -> None:
        if not any(call.module is module for call in self._running):
            return
        # Calls above it were left by an error.
        while (call := self._running.pop()).module is not module:
            pass
        slope = self._slopes.get(id(module))
        if slope is None and self._is_learning and isinstance(y, Tensor):
            self._is_asking = True
            try:
                slope = _slope_of(call, args[0], y)
            finally:
                self._is_asking = False
            if slope is not None:
                self._slopes[id(module)] = slope
        if slope is None:
            for found, given, kept in call.within:
                self._are_functions_needed |= self._offer(found, given, kept)
        elif isinstance(y, Tensor):
            u = None if slope.from_output is not None else call.found.u
            self._offer(call.found._replace(slope=slope, u=u), y, y)


def _slope_of(call: _Call, x: Tensor, y: Tensor) -> Slope | None:
    """phi' of a module that was called, if it is an activation."""
    for found, given, _ in call.within:
        if found.x() is x and given is y:
            return found.slope
    u = call.found.u
    if u is None or y.shape != u.shape or not functional.is_elementwise(y, call.node):
        return None
    is_certain = functional.says_the_same_again(call.module, u, y)
    return functional.slope_of_formula(call.module) if is_certain else None


def _is_free(current: Pass, row: int) -> bool:
    """Whether a call of the row's weight has no activation yet."""
    calls = current.num_calls
    return calls.get(("act", row), 0) < calls.get(("z", row), 0)


def _count(found: _Found, change: int) -> None:
    calls, key = found.current.num_calls, ("act", found.row)
    calls[key] = calls.get(key, 0) + change


def _keep(found: _Found, y: Tensor) -> None:
    if found.u is None:
        found.current.keep("hy", found.row, y, found.slope)
        return
    found.current.keep("u", found.row, found.u, found.slope)
    found.current.keep("h", found.row, y)
