"""What a model is given in a step: looked at only where its loss is not finite.

The references are weak, and kept until the next call, so that nothing stays in memory for it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vgexp.probe.hooks import Hook, Note
from vgexp.probe.loss_arguments import INPUT, WEIGHT, Argument, describe, named_tensors
from vgexp.torch_internals import is_compiled, version_of

_MOST_INPUTS = 8


class ModelInputs:
    """The tensors of the last call of a model with gradients, between `enter` and `leave`."""

    def __init__(self, model: nn.Module, note: Note) -> None:
        self._model = model
        self._note = note
        self._handle: Any = None
        self._last: list[tuple[str, weakref.ref[Tensor], int]] = []

    def enter(self) -> None:
        """Begins to see calls; those of compiled models are not seen."""
        if not any(is_compiled(module) for module in self._model.modules()):
            hook = Hook(self._note, None, self._on_call)
            self._handle = hook.set_before(self._model, with_kwargs=True)

    def leave(self) -> None:
        """Sees no more calls."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
        self._last = []

    def describe(self) -> list[Argument]:
        """Rows of the last call's tensors, and one of the first parameter that is not finite, or of
        the first one if all are. Of tensors that are on a device, in pieces, or were written to
        since, there are none."""
        name = type(self._model).__name__
        found = []
        for key, ref, version in self._last:
            x = ref()
            if x is not None and x.is_cpu and version_of(x) == version:
                found.append(describe(name, key, x.detach())._replace(role=INPUT, made_by=None))
        parameters = [
            (key, p.detach())
            for key, p in self._model.named_parameters()
            if type(p) is nn.Parameter and p.is_cpu and not is_lazy(p) and p.numel()
        ]
        if not parameters:
            return found
        bad = next((each for each in parameters if not torch.isfinite(each[1]).all()), None)
        key, p = bad or parameters[0]
        return [*found, describe(name, key, p)._replace(role=WEIGHT)]

    def _on_call(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        if not torch.is_grad_enabled():
            return
        every = [*named_tensors(model.forward, args, kwargs)][:_MOST_INPUTS]
        self._last = [(name, weakref.ref(x), version_of(x)) for name, x in every]
