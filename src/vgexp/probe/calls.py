"""Records how the modules of a user's model are called, on the first measured pass.

Each module that contains weights has a record of its first call: when it began, what it read and
what it returned, each tensor with its place in autograd's graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.probe.graph import Place, place_of, tensors_in
from vgexp.probe.hooks import Hook, Note
from vgexp.torch_internals import backward_task

Spot = tuple[Tensor, Place | None]
"""A tensor, and its place in the graph when it was passed."""


@dataclass
class Call:
    """The first call of a module with gradients, or the first one if none had any."""

    start: int
    """Its number among all calls, in the order in which they begin."""
    inputs: list[Spot]
    outputs: list[Spot] = field(default_factory=list)
    replay: Call | None = None
    """The same call once more, within a backward pass (reentrant checkpointing)."""
    later: list[Place] = field(default_factory=list)
    """Where the first outputs of further calls were made."""

    @property
    def traced(self) -> Call:
        """The call that has a graph, if one has."""
        has_graph = any(place is not None for _, place in self.outputs)
        return self if has_graph or self.replay is None else self.replay

    @property
    def output(self) -> Place | None:
        """Where its first output was made, when it returned; None where that has no gradient."""
        return self.outputs[0][1] if self.outputs else None

    def places(self) -> list[Place]:
        """Where its first output was made: at its return, by a checkpoint later, and again."""
        found = [self.output, self.late_output]
        found.append(None if self.replay is None else self.replay.output)
        return [*[place for place in found if place is not None], *self.later]

    @property
    def late_output(self) -> Place | None:
        """Where its first output was made as it is known now: a checkpoint says so afterwards."""
        if not self.outputs or self.output is not None:
            return None
        return place_of(self.outputs[0][0])


class Recorder:
    """Sets hooks on modules, and keeps a record of their calls.

    Args:
        modules: by name.
        note: told what goes wrong.
        with_places: whether to record what calls return, and where in the graph tensors were made;
            if not, only the order of the calls and what they read.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], note: Note, *, with_places: bool = True
    ) -> None:
        self._modules = modules
        self._note = note
        self._with_places = with_places
        self._handles: list[Any] = []
        self._open: dict[str, list[Call | None]] = {}
        self._num_calls = 0
        self.calls: dict[str, Call] = {}

    def arm(self) -> None:
        """Sets the hooks, if they are not set."""
        if self._handles:
            return
        for name, module in self._modules.items():
            do = self._before if self._with_places else self._note_order
            before = Hook(self._note, None, partial(do, name))
            after = Hook(self._note, None, partial(self._after, name))
            handles = [before.set_before(module, with_kwargs=True)]
            if self._with_places:
                handles.append(after.set_after(module))
            self._handles += [handle for handle in handles if handle is not None]

    def disarm(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def drop(self) -> None:
        """Forgets the calls."""
        self.calls.clear()
        self._open.clear()

    def record(self, name: str, read: Tensor, z: Tensor) -> None:
        """Records a call that no module makes, once it is made."""
        if name in self.calls:
            self.calls[name].later += [place for _, place in _spots(z) if place is not None]
            return
        self._num_calls += 1
        self.calls[name] = Call(self._num_calls, _spots(read), _spots(z))

    def _before(self, name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        self._num_calls += 1
        known = self.calls.get(name)
        opened = self._open.setdefault(name, [])
        if backward_task() != -1:
            if known is None or known.replay is not None or known.output is not None:
                opened.append(None)
                return
            opened.append(Call(self._num_calls, _spots((args, kwargs))))
            return
        if known is not None and (known.output is not None or not torch.is_grad_enabled()):
            opened.append(None)
            return
        opened.append(Call(self._num_calls, _spots((args, kwargs))))
        if known is None:
            self.calls[name] = opened[-1]  # type: ignore[assignment]

    def _note_order(self, name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        if name not in self.calls and backward_task() == -1:
            self._num_calls += 1
            first = next(tensors_in((args, kwargs)), None)
            inputs: list[Spot] = [] if first is None else [(first, None)]
            self.calls[name] = Call(self._num_calls, inputs)

    def _after(self, name: str, _: nn.Module, _args: Any, output: Any) -> None:
        opened = self._open.get(name)
        call = opened.pop() if opened else None
        known = self.calls.get(name)
        if known is None:
            return
        if call is None:
            first = next(tensors_in(output), None)
            place = None if first is None else place_of(first)
            if place is not None:
                known.later.append(place)
            return
        call.outputs = _spots(output)
        if backward_task() != -1:
            known.replay = call
        elif call is not known and (call.output is not None or not known.outputs):
            self.calls[name] = call


def _spots(value: object) -> list[Spot]:
    return [(x, place_of(x)) for x in tensors_in(value)]
