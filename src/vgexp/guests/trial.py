"""One update of a copy, and all that is looked at in it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vgexp.guests.calls import (
    Call,
    explained,
    guess_of,
    handing_on,
    kind_of,
    own_loss,
    require_loss,
)
from vgexp.guests.probe import Probe
from vgexp.probe.graph import tensors_in
from vgexp.probe.loss import loss_in
from vgexp.probe.optimizers import StepHooks
from vgexp.seeds import without_draws

_BESIDE = 100.0
"""Times by which entries beside others may be larger than all together."""
_TIMES = 1.5
"""What weights are multiplied by to see whether the loss depends on them."""


class Trial(NamedTuple):
    """What one update showed."""

    probe: Probe
    facts: Mapping[str, Any]
    """Metrics that rules read beside the probe's tables."""
    of_loss_alone: set[str]
    """Names of the parameters whose modules the loss function calls, and the model does not."""
    kind: str | None
    """Which function of PyTorch the loss is by its value; None: none of the usual ones."""


def try_update(model: nn.Module, loss_fn: Any, call: Call, optimizer: Any | None) -> Trial:
    """Makes one update of a model, which is changed by it.

    Args:
        optimizer: holds the model's parameters; None: the update is left out.

    Raises:
        QuestionError: a pass raised, or the loss is not one number.
    """
    bad_weights = [name for name, p in model.named_parameters() if _is_bad(p)]
    step_of = _stand_in(model) if optimizer is None else optimizer
    for parameter in (*model.parameters(), *StepHooks(step_of).parameters()):
        parameter.grad = None
    seen = _Seen(model)
    probe = Probe(model, step_of, every=1, activations_every=1)
    watched = None if loss_fn is None else probe.watch_loss(loss_fn)
    with probe:
        with explained("the model's forward pass", call), seen.calls():
            output = model(*call.args, **call.kwargs)
        in_model = seen.names()
        with explained("the loss function", call, output), seen.calls():
            result = output if watched is None else watched(output, call.target)
        if watched is None:
            result = _watch_own_loss(probe, model, call, output)
        loss = require_loss(result, loss_fn)
        if watched is None or not loss.requires_grad:
            probe.note_loss(loss)
        value = float(loss.detach())
        if loss.requires_grad:
            with explained("the backward pass", call, output):
                loss.backward()  # type: ignore[no-untyped-call]
        # Gradients that are nan make weights so, and the place of the first nan is asked below.
        kept = [] if math.isfinite(value) else [(p, p.detach().clone()) for p in model.parameters()]
        silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        with explained("the optimizer's step", call):
            _step(step_of, loss)
    with torch.no_grad():
        for parameter, before in kept:
            parameter.copy_(before)
    compared = own_loss(call.kwargs, output) if loss_fn is None else (output, call.target)
    again = _Again(model, loss_fn, call)
    seen.see_inputs(call)
    facts = {
        "loss_at_start": value,
        "loss_after_update": None if optimizer is None else again.loss(),
        "constant_loss": compared and guess_of(compared[0], compared[1], value),
        "inputs_rms": seen.inputs_rms,
        "is_norm_first": seen.is_norm_first,
        "not_finite_weights": bad_weights,
        "not_finite_at": None if math.isfinite(value) else again.first_bad_module(),
        "loss_ignores": again.ignored(silent) if loss.requires_grad else [],
    }
    kind = compared and kind_of(compared[0], compared[1], value)
    return Trial(probe, facts, seen.names() - in_model, kind)


class _Seen:
    """Which of a model's modules are called, in which order, and what its first weight reads."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._called: list[nn.Module] = []
        self._first_weight: int | None = None
        self._looks_up = False
        """Whether all modules with a matrix so far looked rows of it up by integers."""
        self.inputs_rms: float | None = None
        """Root mean square of what the first module with a matrix or kernel reads (`_rms_of`)."""
        self._read_beside: float | None = None
        """That of the first one that reads numbers, behind some that look up integers."""

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Within, calls are seen."""
        handles = [m.register_forward_pre_hook(self._see) for m in self._model.modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def is_norm_first(self) -> bool:
        """Whether a normalisation follows directly on the first weight."""
        after = [] if self._first_weight is None else self._called[self._first_weight + 1 :]
        return bool(after) and "Norm" in type(after[0]).__name__

    def names(self) -> set[str]:
        """The names of the parameters that modules called so far have, and no other ones."""
        called = {id(module) for module in self._called}
        names = {id(p): name for name, p in self._model.named_parameters()}
        theirs: set[int] = set()
        others: set[int] = set()
        for module in self._model.modules():
            own = theirs if id(module) in called else others
            own |= {id(p) for p in module.parameters(recurse=False)}
        return {names[each] for each in theirs - others}

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._first_weight is None or self._looks_up:
            own = [*module.parameters(recurse=False)]
            if any(not _has_no_shape(p) and p.ndim > 1 for p in own):
                if self._first_weight is None:
                    self._first_weight = len(self._called)
                read = next(iter(args), None)
                x = read if isinstance(read, Tensor) else None
                if x is not None and x.is_floating_point() and x.numel():
                    if self._looks_up:
                        self._read_beside = _rms_of(x)
                    else:
                        self.inputs_rms = _rms_of(x)
                self._looks_up = x is not None and not x.is_floating_point()
        self._called.append(module)

    def see_inputs(self, call: Call) -> None:
        """Where the first weight looks up integers, takes what the model was given in numbers, as
        far as the first weight that reads numbers reads them: large ones alone are told from the
        embeddings beside them."""
        read = self._read_beside
        given = [
            _rms_of(x)
            for x in tensors_in((*call.args, *call.kwargs.values()))
            if x.is_floating_point() and x.numel()
        ]
        if read is not None and read > 1 and any(read <= size <= _BESIDE * read for size in given):
            self.inputs_rms = read


class _Again:
    """Further forward passes of a copy that has made its update. Randomness is drawn alike."""

    def __init__(self, model: nn.Module, loss_fn: Any, call: Call) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._call = call

    def loss(self) -> float | None:
        """The loss; None where a model that changes as it runs raises something."""
        try:
            with without_draws(), torch.no_grad():
                torch.manual_seed(0)
                output = self._model(*self._call.args, **self._call.kwargs)
                loss = loss_in(
                    output if self._loss_fn is None else self._loss_fn(output, self._call.target)
                )
                return None if loss is None or loss.numel() != 1 else float(loss)
        except Exception:  # of somebody else's code any
            return None

    def ignored(self, names: Sequence[str]) -> list[str]:
        """Those of some parameters on which the loss does not depend: it is bit-identical where
        they are others."""
        parameters = dict(self._model.named_parameters())
        found = []
        before = self.loss() if names else None
        for name in names if before is not None and math.isfinite(before) else ():
            parameter = parameters[name]
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter.mul_(_TIMES).add_(_TIMES - 1)
            if self.loss() == before:
                found.append(name)
            with torch.no_grad():
                parameter.copy_(kept)
        return found

    def first_bad_module(self) -> str | None:
        """The first module that makes something not finite of what is; None: no module does."""
        found: list[str] = []

        def see(name: str, args: Any, output: Any) -> None:
            makes = any(map(_is_bad, tensors_in(output, in_objects=True)))
            if not found and makes and not any(map(_is_bad, tensors_in(args))):
                found.append(name)

        handles = [
            module.register_forward_hook(lambda _, args, output, name=name: see(name, args, output))
            for name, module in self._model.named_modules()
            if name and not [*module.children()]
        ]
        try:
            self.loss()
        finally:
            for handle in handles:
                handle.remove()
        return found[0] if found else None


def _watch_own_loss(probe: Probe, model: nn.Module, call: Call, output: Any) -> Any:
    """What a model returned that makes its own loss; its logits and labels are described."""
    loss, found = loss_in(output), own_loss(call.kwargs, output)
    if loss is None or found is None:
        return output
    return probe.watch_loss(handing_on(loss, f"{type(model).__name__}.loss"))(*found)


def _step(optimizer: Any, loss: Tensor) -> None:
    """Makes the step; an optimizer that asks for the loss again gets the one that there is."""
    try:
        needed = inspect.signature(optimizer.step).parameters.get("closure")
    except (TypeError, ValueError):
        needed = None
    if needed is not None and needed.default is inspect.Parameter.empty:
        optimizer.step(lambda: loss.detach())
    else:
        optimizer.step()


def _stand_in(model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer that changes nothing, where none was given."""
    every = [p for p in model.parameters() if p.requires_grad] or [*model.parameters()]
    return torch.optim.SGD(every, lr=0.0)


def _rms_of(inputs: Tensor) -> float:
    """The root mean square of all entries; where most are 0, as those of one-hot rows and counts of
    words, and make it small, that of the others, at most 1."""
    x = inputs.detach().double()
    rms = float(x.square().mean().sqrt())
    others = x[x != 0]
    if rms >= 1 or not others.numel() or others.numel() > x.numel() / 2:
        return rms
    return min(1.0, float(others.square().mean().sqrt()))


def _has_no_shape(parameter: Tensor) -> bool:
    return nn.parameter.is_lazy(parameter)


def _is_bad(x: Tensor) -> bool:
    if _has_no_shape(x) or not (x.is_floating_point() or x.is_complex()):
        return False
    return not bool(torch.isfinite(x.detach()).all())
