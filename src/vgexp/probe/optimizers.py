"""Finds the optimizer whose hooks tell when an update begins and ends, inside of wrappers too."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from vgexp.errors import QuestionError
from vgexp.torch_internals import compiler_is_loaded

WRAPPED = ("optimizer", "base_optimizer", "_optimizer", "base", "optim")
"""The attributes in which well-known wrappers keep the optimizer that they wrap."""
MOST_WRAPPERS = 8
"""The longest chain of wrappers that is followed."""
OWN_STEPS = ("first_step", "second_step")
"""Methods by which some optimizers make an update; no hook is called around them."""

_MOST_MARKED = 4
"""Parameters whose gradients show whether a backward pass was made."""
StepHook = Callable[..., None]


class StepHooks:
    """Hooks around the step of an optimizer, or of the one that it wraps.

    Some wrappers are optimizers by their class, but never call its constructor, so they take no
    hooks. The outermost optimizer of a chain that takes them is used.

    Raises:
        QuestionError: the object is no optimizer, but a scheduler of one, for example.
    """

    def __init__(self, optimizer: object) -> None:
        if _is_scheduler(optimizer):
            raise QuestionError(
                f"Probe: optimizer is a {_name(optimizer)}, which schedules one\n"
                "allowed: the optimizer itself, as in Probe(model, scheduler.optimizer)"
            )
        self._chain = list(_chain(optimizer))
        if not any(map(_is_optimizer, self._chain)):
            raise QuestionError(
                f"Probe: optimizer is of type {type(optimizer).__name__}\n"
                "allowed: a torch.optim.Optimizer, as in Probe(model, optimizer)"
            )
        self._handles: list[Any] = []
        self.of_others: set[int] = set()
        """The identities of the tensors that other optimizers held as they made a step between
        `set` and `remove`."""
        self.takes_turns = False
        """Whether gradients came to both sides between a step of this optimizer and one of another:
        each has a backward pass of its own, as the two networks of a GAN have. Of two that share
        one pass none come to the second, even if it clips what it has."""
        self._theirs: list[Any] = []
        self._passes: dict[int, _Passes] = {}
        """By the identity of a parameter whose gradients are counted; at most 4 of each side."""
        self._marks: dict[str, Any] = {}
        self._changed: set[str] = set()
        self._shares_passes = False

    def set(self, before: StepHook, after: StepHook) -> str:
        """Sets the hooks. Returns what takes none, and what is measured instead; mostly nothing."""
        outer = self._chain[0]
        if compiler_is_loaded():
            # A compiled step calls them uncompiled. It has graph breaks of its own in any case.
            disable: Callable[[StepHook], StepHook] = torch.compiler.disable
            before, after = disable(before), disable(after)
            see, own = disable(self._see_any), disable(self._see_own)
        else:
            see, own = self._see_any, self._see_own
        self._handles.append(register_optimizer_step_post_hook(see))
        for candidate in self._chain:
            try:
                self._handles.append(candidate.register_step_pre_hook(own))
                self._handles.append(candidate.register_step_pre_hook(before))
                self._handles.append(candidate.register_step_post_hook(after))
            except Exception:
                # What fails is somebody else's class: it may raise anything.
                for handle in self._handles[1:]:
                    handle.remove()
                del self._handles[1:]
                continue
            if candidate is not outer:
                return (
                    f"{_name(outer)} takes no hooks: what is measured is the step of the"
                    f" {_name(candidate)} in it"
                )
            if all(hasattr(outer, name) for name in OWN_STEPS):
                return (
                    f"{_name(outer)} takes hooks around its step only: updates by"
                    f" {' and '.join(OWN_STEPS)} are neither counted nor measured"
                )
            return ""
        return f"{_name(outer)} takes no hooks and holds no optimizer that does: no row is made"

    def remove(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stop_counting()

    def _see_any(self, optimizer: Any, *_: Any) -> None:
        """Notes what an optimizer of anybody's holds that made a step."""
        try:
            self._see_other(optimizer)
        except Exception:  # somebody else's class, in whose step nothing of ours may raise
            self._shares_passes = True

    def _see_other(self, optimizer: Any) -> None:
        """Notes what an optimizer holds, unless it is one of the chain."""
        if any(optimizer is each for each in self._chain):
            return
        groups = _attribute(optimizer, "param_groups") or ()
        theirs = [p for group in groups for p in group["params"]]
        self.of_others.update(id(p) for p in theirs)
        if self.takes_turns or self._shares_passes:
            return
        if not self._theirs:
            self._theirs = [weakref.ref(p) for p in theirs[:_MOST_MARKED]]
        elif all(ref() is p for ref, p in zip(self._theirs, theirs, strict=False)):
            self._compare("theirs", [ref() for ref in self._theirs])
        if self.takes_turns or self._shares_passes:
            return
        self._marks["ours"] = self._marks_of(self.parameters()[:_MOST_MARKED])
        self._marks_of([ref() for ref in self._theirs])  # from now on their gradients are counted

    def _see_own(self, *_: Any) -> None:
        """Notes whether our gradients changed since a step of another optimizer."""
        if not self._theirs or self.takes_turns:
            return
        try:
            self._compare("ours", self.parameters()[:_MOST_MARKED])
            if not self.takes_turns and not self._shares_passes:
                self._marks["theirs"] = self._marks_of([ref() for ref in self._theirs])
        except Exception:
            self._shares_passes = True

    def _compare(self, whose: str, parameters: Sequence[Any]) -> None:
        mark = self._marks.pop(whose, None)
        if mark is None:
            return
        if mark == self._marks_of(parameters):
            self._changed.clear()
            self._theirs.clear()
            self._shares_passes = True
        else:
            self._changed.add(whose)
        self.takes_turns = not self._shares_passes and len(self._changed) == 2
        if self.takes_turns or self._shares_passes:
            self._stop_counting()

    def _marks_of(self, parameters: Sequence[Any]) -> list[tuple[int, int] | None]:
        """Of each gradient what changes when a backward pass adds to it or it is replaced, and not
        when it is clipped."""
        marks: list[tuple[int, int] | None] = []
        for p in parameters:
            if p is None or p.grad is None or not p.requires_grad:
                marks.append(None)
                continue
            if id(p) not in self._passes:
                self._passes[id(p)] = _Passes(p)
            marks.append((id(p.grad), self._passes[id(p)].num_passes))
        return marks

    def _stop_counting(self) -> None:
        for each in self._passes.values():
            each.handle.remove()
        self._passes.clear()
        self._marks.clear()

    def parameters(self) -> list[Tensor]:
        """The tensors that the optimizer updates."""
        return [p for group in self.groups() for p in group["params"]]

    def groups(self) -> list[dict[str, Any]]:
        """The groups of parameters, each with its settings; empty where there are none."""
        every = (_attribute(each, "param_groups") for each in self._chain)
        return next((groups for groups in every if groups), [])

    def found_inf(self) -> Tensor | None:
        """Above 0 where a scaler has a fused optimizer leave the step out; None: none says so."""
        found = (_attribute(each, "found_inf") for each in self._chain)
        return next((each for each in found if isinstance(each, Tensor)), None)

    def gradient_scale(self) -> Tensor | None:
        """What a fused optimizer divides its gradients by within its step; None: by nothing."""
        scales = (_attribute(each, "grad_scale") for each in self._chain)
        return next((scale for scale in scales if scale is not None), None)


class _Passes:
    """Counts how often gradients came to a parameter."""

    def __init__(self, parameter: Tensor) -> None:
        self.num_passes = 0
        hook = parameter.register_post_accumulate_grad_hook
        self.handle = hook(self._add)  # type: ignore[no-untyped-call]

    def _add(self, _: Tensor) -> None:
        self.num_passes += 1


def _chain(optimizer: object) -> Iterator[Any]:
    """An optimizer, the one that it wraps, and so on."""
    seen: list[object] = []
    current: object | None = optimizer
    while current is not None and len(seen) <= MOST_WRAPPERS:
        if any(current is each for each in seen):
            return
        seen.append(current)
        yield current
        held = (_attribute(current, name) for name in WRAPPED)
        current = next((each for each in held if each is not None and _is_optimizer(each)), None)


def _is_optimizer(value: object) -> bool:
    """Whether something makes steps of parameters, or takes hooks around them."""
    if isinstance(value, type):
        return False
    holds_parameters = _attribute(value, "param_groups") is not None
    makes_steps = callable(_attribute(value, "step")) and holds_parameters
    return makes_steps or callable(_attribute(value, "register_step_pre_hook"))


def _is_scheduler(value: object) -> bool:
    """Whether something holds an optimizer, and sets its learning rates alone.

    Those of torch and its heirs have `get_last_lr`, those of timm `get_cycle_length`.
    """
    if _is_optimizer(value):
        return False
    return any(callable(_attribute(value, name)) for name in ("get_last_lr", "get_cycle_length"))


def _attribute(value: object, name: str) -> Any:
    """An attribute; None where there is none, or where looking it up raises anything."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None


def _name(optimizer: object) -> str:
    return type(optimizer).__name__
