"""Assigns forward calls to the micro-batches of an optimizer step, and says which ones count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.probe.examples import Examples, input_shape
from vgexp.probe.hooks import Hook, Note
from vgexp.probe.moments import StackMeasure
from vgexp.probe.passes import NO_MEASURES, Copies, Pass
from vgexp.torch_internals import (
    backward_task,
    call_after_backward,
    gradient_of,
    is_in_flat,
    version_of,
)

_GRADIENT = attrgetter("grad")


class MicroBatches:
    """The passes since the last optimizer step.

    A pass begins with a call of the model, or, where submodules are called without it, after a
    backward pass. It counts if its backward pass added to the gradients of parameters, and these
    were not cleared since.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        channels_first: frozenset[int],
        examples: Examples,
        note: Note,
        own: Mapping[str, Sequence[StackMeasure]] = NO_MEASURES,
    ) -> None:
        self._parameters = parameters
        self._are_flat = any(map(is_in_flat, parameters))
        self._channels_first = channels_first
        self._examples = examples
        self.with_histograms = False
        """Whether passes that begin from now on are counted in histograms as well."""
        self._note = note
        self._own = own
        self._copies = Copies()
        self._passes: list[Pass] = []
        self._hooks: list[Any] = []
        self._before_backward: list[tuple[int, int]] = []
        self._after_backward: list[tuple[int, int]] = []
        self._written_before: list[int] = []

    @property
    def last(self) -> Pass:
        """The pass that began last."""
        return self._passes[-1]

    @property
    def has_any(self) -> bool:
        """Whether a pass began since the last step."""
        return bool(self._passes)

    def used(self) -> list[Pass]:
        """The passes that count."""
        return [p for p in self._passes if p.has_gradients]

    def end_step(self) -> None:
        """Forgets the step's passes, and ends the learning of the first step."""
        if self.used():
            self._copies.stop_learning()
        self.drop()

    def drop(self) -> None:
        """Forgets the step's passes."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self._passes.clear()

    def current(self, row: int | None, inputs: Any) -> Pass | None:
        """The pass that a forward call belongs to; None where autograd records no gradient."""
        if not torch.is_grad_enabled():
            return None
        if not self._passes:
            return self._begin_within(inputs)
        current = self._passes[-1]
        if backward_task() != -1:
            return current
        called_before = row is not None and ("z", row) in current.num_calls
        if current.backward_tasks or (called_before and current.has_gradients):
            return self._begin_within(inputs)
        return current

    def on_model_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begins a pass when the model is called, unless checkpointing repeats a call.

        Within a backward pass, a call is new only if the first one was made without gradients, so
        that no pass began then.
        """
        if not torch.is_grad_enabled():
            return
        task = backward_task()
        begun = self._passes[-1].opened_in_task if self._passes else None
        if task == -1 or begun not in (-1, task):
            self._begin(self._examples.of_call(args, kwargs), input_shape((args, kwargs)))

    def on_model_output(self, output: Tensor) -> None:
        """Sets a hook on the model's output, where its backward pass will begin."""
        if self._passes and backward_task() == -1 and output.requires_grad:
            self.hook(output, Hook(self._note, None, partial(self._backward_begins, self.last)))

    def hook(self, x: Tensor, hook: Any) -> None:
        """Sets a hook on a tensor's gradient, which is removed when the step ends."""
        self._hooks.append(x.register_hook(hook))  # type: ignore[no-untyped-call]

    def on_time_first(self, given: object) -> None:
        """Corrects the number of examples where a module finds them along dim 1 of its input."""
        if self._passes and not self._passes[-1].backward_tasks:
            last = self._passes[-1]
            last.examples = self._examples.of_time_first(last.examples, last.input_shape, given)

    def _begin_within(self, inputs: Any) -> Pass:
        return self._begin(self._examples.of_submodule(inputs), input_shape(inputs))

    def _begin(self, examples: int, shape: tuple[int, ...]) -> Pass:
        for earlier in self._passes:
            earlier.reduce()
            earlier.reduce_accepted()
        current = Pass(
            self._copies,
            self._channels_first,
            examples,
            backward_task(),
            with_histograms=self.with_histograms,
            own=self._own,
        )
        current.input_shape = shape
        self._passes.append(current)
        return current

    def _backward_begins(self, current: Pass, _gradient: Tensor) -> None:
        task = backward_task()
        earlier = [p for p in self.used() if p is not current and task not in p.backward_tasks]
        if earlier and self._gradients_were_cleared():
            # No step was taken on them: it was skipped, or the gradients were thrown away.
            self._passes = [p for p in self._passes if p not in earlier]
        if task in current.backward_tasks:
            return
        current.backward_tasks.add(task)
        self._before_backward = self._marks()
        self._written_before = self._versions()
        call_after_backward(Hook(self._note, None, self._backward_ends))

    def _backward_ends(self) -> None:
        self._after_backward = self._marks()
        # `torch.autograd.grad` goes through the graph too, but adds nothing to a gradient. Where an
        # optimizer steps within the backward pass, and frees each gradient, weights were written.
        is_of_update = (
            self._after_backward != self._before_backward
            or self._versions() != self._written_before
        )
        for each in self._passes:
            each.accept_gradients(is_of_update)

    def _gradients_were_cleared(self) -> bool:
        """Whether `zero_grad` was called since the last backward pass, with None or with zeros."""
        marks = self._marks()
        if not marks:
            return True
        if marks == self._after_backward:
            return False
        # Read only if something wrote to them, since reading waits for the device on CUDA.
        grads = map(gradient_of, self._parameters)
        return not any(bool(g.any()) for g in grads if g is not None)

    def _versions(self) -> list[int]:
        return [version_of(p) for p in self._parameters]

    def _marks(self) -> list[tuple[int, int]]:
        """Numbers that change when a gradient is made, written to or cleared."""
        grads = map(gradient_of if self._are_flat else _GRADIENT, self._parameters)
        return [(id(g), version_of(g)) for g in grads if g is not None]
