"""Finds recurrences whose state is cut from the graph at every step in time.

A module that is called at each step in time of one sequence is behind itself in autograd's graph:
a path leads from each of its outputs to the one before. Where none does, and the state that it read
was detached, turned into numbers or is the data of its last output, the gradient comes back from
the last step alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.probe.flat import Members
from vgexp.probe.functions import FunctionCall, FunctionWatcher
from vgexp.probe.graph import Place, place_of, tensors_in, walk
from vgexp.probe.hooks import Hook, Note
from vgexp.torch_internals import backward_task

_CUTTING = (torch.detach, Tensor.detach, Tensor.detach_, Tensor.tolist, Tensor.numpy)
_LEAST_CALLS = 3
"""Calls of a module in a pass from which on it is one that goes through time."""
_MOST_NODES = 400
"""Nodes of the graph between two calls that are looked at; behind more a path may lie."""


@dataclass
class _Chain:
    """The calls of one module in one pass."""

    num_calls: int = 0
    num_aliases: int = 0
    """Calls that read the data of the last output, without its gradient."""
    has_path: bool = False
    places: list[Place] = field(default_factory=list)
    data: list[tuple[int, torch.Size]] = field(default_factory=list)
    was_passed: bool = False
    """Whether a backward pass went through the last output: the next call begins another piece."""


class CutStates:
    """Looks at the calls of a model's modules in one update, the first that is measured.

    Args:
        functions: shows which functions the model calls.
        note: is told what goes wrong.
    """

    def __init__(self, model: nn.Module, functions: FunctionWatcher, note: Note) -> None:
        self._model = model
        self._functions = functions
        self._note = note
        self._handles: list[Any] = []
        self._chains: dict[str, _Chain] = {}
        self._num_cuts = 0
        self._is_over = False
        self.found: tuple[str, ...] = ()
        """The names of the modules whose state is cut."""
        functions.watch(_CUTTING, self._see)

    def arm(self) -> None:
        """Sets hooks on modules that have parameters of their own, unless one update was seen."""
        if self._handles or self._is_over:
            return
        for name, module in Members(self._model).modules():
            is_model = not name
            if next(module.parameters(recurse=False), None) is None and not is_model:
                continue
            before = Hook(self._note, None, partial(self._before, name, is_model))
            after = Hook(self._note, None, partial(self._after, name))
            handles = (before.set_before(module, with_kwargs=True), after.set_after(module))
            self._handles += [handle for handle in handles if handle is not None]

    def disarm(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def forget(self) -> None:
        """Forgets the calls so far, whose places hold autograd's graph."""
        self._chains.clear()
        self._num_cuts = 0

    def end_step(self) -> None:
        """Ends the update; the first in which anything was called is the only one."""
        if self._is_over or not self._chains:
            return
        self._judge(is_pass=True)
        self._judge(is_pass=False)
        self._is_over = True
        self._chains.clear()
        self._functions.unwatch(self._see)
        self.disarm()

    def _judge(self, *, is_pass: bool) -> None:
        """Takes note of what is cut: in one pass of the model, or in all of the update."""
        if self.found:
            return
        through_time = {n: c for n, c in self._chains.items() if c.num_calls >= _LEAST_CALLS}
        if not through_time or any(chain.has_path for chain in through_time.values()):
            return
        self.found = tuple(
            name or type(self._model).__name__
            for name, chain in through_time.items()
            if chain.num_aliases >= chain.num_calls - 1
            or (is_pass and self._num_cuts >= chain.num_calls - 1)
        )

    def _see(self, call: FunctionCall) -> None:
        x = call.args[0] if call.args else None
        if isinstance(x, Tensor) and x.requires_grad and x.numel() > 1:
            self._num_cuts += 1

    def _before(self, name: str, is_model: bool, _: nn.Module, args: Any, kwargs: Any) -> None:
        if self._is_over or not torch.is_grad_enabled() or backward_task() != -1:
            return
        if is_model:
            self._judge(is_pass=True)
            own = self._chains.get(name)
            self._chains = {} if own is None else {name: own}
            self._num_cuts = 0
        chain = self._chains.setdefault(name, _Chain())
        given = [x for x in tensors_in((args, kwargs)) if x.is_floating_point()]
        read = {(x.data_ptr(), x.shape) for x in given if not x.requires_grad and x.numel()}
        if chain.num_calls and not chain.was_passed and not read.isdisjoint(chain.data):
            chain.num_aliases += 1

    def _after(self, name: str, module: nn.Module, _args: Any, output: Any) -> None:
        chain = self._chains.get(name)
        if chain is None or not torch.is_grad_enabled() or backward_task() != -1:
            return
        made = [x for x in tensors_in(output) if x.requires_grad and x.numel()]
        places = [place for x in made if (place := place_of(x)) is not None]
        if chain.num_calls and not chain.has_path:
            chain.has_path = _leads(places, chain.places)
        chain.num_calls += 1
        chain.places, chain.was_passed = places, False
        chain.data = [(x.data_ptr(), x.shape) for x in made]
        if made and module is self._model:  # within one call of the model no pass comes between
            hook = Hook(self._note, None, partial(self._on_backward, chain))
            self._handles.append(made[0].register_hook(hook))  # type: ignore[no-untyped-call]

    def _on_backward(self, chain: _Chain, _: Tensor) -> None:
        chain.was_passed = True


def _leads(starts: list[Place], goals: list[Place]) -> bool:
    """Whether a path leads from outputs to those of the call before, or may."""
    ends = set(goals)
    seen = [*islice(walk(starts, lambda place: place in ends), _MOST_NODES)]
    return len(seen) == _MOST_NODES or not ends.isdisjoint(seen)
